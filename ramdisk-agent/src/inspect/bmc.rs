//! The management controller, asked through its in-band interface.

use std::fs::File;
use std::io;
use std::time::Duration;

use protocol::inventory::Bmc;
use ramdisk_agent_core::ipmi;

use super::tree::Tree;
use crate::sys;

/// Longest wait for one answer: controllers that restart answer nothing for minutes, and nobody waits for that.
const ANSWER: Duration = Duration::from_secs(2);

/// The in-band interface.
pub fn device() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/ipmi0")
}

/// The controller; `None` where there is no in-band interface, with a warning where it does not answer.
pub fn bmc(tree: &Tree, warnings: &mut Vec<String>) -> Option<Bmc> {
    if !tree.is_live() {
        return None;
    }
    let device = device().ok()?;
    let ask = |(netfn, cmd), data: &[u8]| sys::ipmi(&device, netfn, cmd, data, ANSWER);
    let mut found = match ask(ipmi::DEVICE_ID, &[]) {
        Ok(answer) => ipmi::device_id(&answer)?,
        Err(e) => {
            warnings.push(format!("the management controller does not answer in-band: {e}"));
            return None;
        }
    };
    for channel in ipmi::CHANNELS {
        let lan = |parameter| ask(ipmi::LAN, &[channel, parameter, 0, 0]).unwrap_or_default();
        found.mac = ipmi::lan_mac(&lan(ipmi::LAN_MAC));
        if found.mac.is_some() {
            found.address = ipmi::lan_address(&lan(ipmi::LAN_ADDRESS));
            break;
        }
    }
    Some(found)
}
