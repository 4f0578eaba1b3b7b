//! NoCloud over HTTP: what cloud-init reads below `ds=nocloud;s=http://…/` (seedfrom).

use super::{File, Instance, YAML};
use crate::cloud_config;

pub(super) fn files(instance: &Instance) -> Vec<File> {
    let empty = || "#cloud-config\n{}\n".to_owned();
    let mut files = vec![
        File::new("meta-data", YAML, cloud_config::meta_data(instance.id, &instance.hostname)),
        File::new("user-data", YAML, instance.user_data.clone().unwrap_or_else(empty)).secret(),
        File::new("vendor-data", YAML, instance.vendor_data.clone()).secret(),
    ];
    if let Some(config) = &instance.network_config {
        files.push(File::new("network-config", YAML, config.clone()));
    }
    files
}
