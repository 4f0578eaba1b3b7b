//! Machines without DHCP: boot images that are made, inserted, used once and taken out, and addresses that nobody else has.

use bmc::BootDevice;
use boot_server_core::node::event::Verb;
use boot_server_core::node::{Level, NetworkError, StateName, StaticNetwork};
use protocol::inventory::FirmwareMode;
use tokio_util::sync::CancellationToken;

use super::power_tests::{MAC, Site};
use super::tests::{hello, inventory};
use super::*;

fn operator() -> Actor {
    Actor::Operator(String::new())
}

fn network(address: &str) -> StaticNetwork {
    StaticNetwork { address: address.parse().unwrap(), gateway: None, mac: None, dns: Vec::new() }
}

/// A site with all that an image needs, whose node gets no address by DHCP.
async fn site() -> Site {
    let site = Site::new().await;
    let dir = site.engine.settings().state_dir.clone();
    for (name, content) in [
        ("loaders/shimx64.efi.signed", "shim"),
        ("loaders/gcdx64.efi.signed", "grub"),
        ("boot/vmlinuz", "kernel"),
        ("boot/initramfs", "ramdisk"),
    ] {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let mut inventory = inventory();
    inventory.firmware.mode = FirmwareMode::Uefi;
    site.engine.keep_inventory(site.node.id, Some(Arc::new(inventory)));
    // The server of these tests is at 127.0.0.1.
    let network = StaticNetwork { gateway: "10.77.0.1".parse().ok(), ..network("10.77.0.50/24") };
    site.engine.set_network(&site.node, operator(), Some(network)).await.unwrap();
    site
}

impl Site {
    fn in_drive(&self) -> Option<String> {
        lock(&self.fake.state).media.clone()
    }

    fn ticket(&self) -> String {
        let url = self.in_drive().expect("an image in the drive");
        url.strip_suffix(&format!("/{IMAGE_NAME}")).unwrap().rsplit('/').next().unwrap().to_owned()
    }
}

#[tokio::test]
async fn an_image_is_good_for_one_boot() {
    let site = site().await;
    lock(&site.fake.state).on = true;
    site.inspect().await;
    site.until("power.on").await;
    let log: Vec<_> = lock(&site.fake.state).log.iter().filter(|l| !l.ends_with('?')).cloned().collect();
    assert_eq!(log, ["insert", "boot!", "force_off", "on"]);
    assert_eq!(lock(&site.fake.state).boot.as_ref().unwrap().device, BootDevice::Cdrom);
    assert!(site.waits_for().await.contains("the boot image in its drive"), "{}", site.waits_for().await);

    let ticket = site.ticket();
    let (node, nonce) = site.engine.boot_image(&ticket).unwrap();
    assert_eq!(node.id, site.node.id);
    assert!(site.engine.boot_image(&"0".repeat(64)).is_none());
    let config = crate::boot_image::config(
        site.engine.settings(),
        &crate::http::BootFiles::new(site.engine.settings()),
        &node,
        &nonce,
    )
    .unwrap();
    for word in ["billet.address=10.77.0.50/24", "billet.gateway=10.77.0.1", &format!("billet.nonce={nonce}")]
    {
        assert!(config.contains(&format!(" '{word}'")), "{word} in {config}");
    }
    site.engine.hello(hello(nonce.clone(), vec![MAC])).await.unwrap();
    let trust = site.now().await.trust();
    assert_eq!(trust.level, Level::T2, "{}", trust.why);
    assert!(site.engine.boot_image(&ticket).is_none(), "it was booted");
    site.until("media.ejected").await;
    assert_eq!(site.in_drive(), None);
    assert!(site.now().await.medium.is_none());
    site.end().await;
}

#[tokio::test]
async fn a_job_that_is_called_off_leaves_no_image_behind() {
    let site = site().await;
    site.inspect().await;
    site.until("power.on").await;
    let ticket = site.ticket();
    site.engine.apply(site.node.id, operator(), Event::Verb(Verb::Abort)).await.unwrap();
    assert!(site.engine.boot_image(&ticket).is_none(), "nobody waits for it");
    site.until("media.ejected").await;
    assert_eq!(site.in_drive(), None);
    site.end().await;
}

#[tokio::test]
async fn what_somebody_else_put_into_the_drive_stays() {
    let site = site().await;
    let theirs = "http://10.0.0.1/debian.iso".to_owned();
    lock(&site.fake.state).media = Some(theirs.clone());
    assert!(site.engine.eject(site.node.id, &CancellationToken::new()).await.unwrap());
    assert_eq!(site.in_drive(), Some(theirs));
    site.end().await;
}

#[tokio::test]
async fn a_machine_that_cannot_boot_so_is_refused_by_name() {
    let site = site().await;
    lock(&site.fake.state).no_drive = true;
    lock(&site.fake.state).on = true;
    site.inspect().await;
    site.until("inspecting.failed").await;
    let fault = site.engine.view(&site.now().await).await.fault.unwrap();
    assert!(fault.message.contains("virtual media"), "{fault:?}");
    assert!(lock(&site.fake.state).on, "nothing was done to the machine");

    site.engine.remove_bmc(site.node.id, operator()).await.unwrap();
    site.engine.apply(site.node.id, operator(), Event::Verb(Verb::Retry)).await.unwrap();
    for _ in 0..1000 {
        if site.now().await.state.name() == StateName::Failed {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let fault = site.engine.view(&site.now().await).await.fault.unwrap();
    assert!(fault.message.contains("no BMC of it is known"), "{fault:?}");
    assert!(fault.hint.contains("billet node network"), "{fault:?}");
    site.end().await;
}

#[tokio::test]
async fn an_address_has_one_owner() {
    let site = Site::new().await;
    let engine = &site.engine;
    // The server of these tests is 127.0.0.1/24 and lends nothing that a machine could have.
    let near = |text| StaticNetwork { gateway: "10.77.0.1".parse().ok(), ..network(text) };
    engine.set_network(&site.node, operator(), Some(near("10.77.0.50/24"))).await.unwrap();
    engine.set_network(&site.node, operator(), Some(near("10.77.0.50/24"))).await.unwrap();
    let other = protocol::MacAddr([0x52, 0x54, 0, 0, 9, 2]);
    let claim = boot_server_core::node::Claim { uuid: None, serial: None, macs: vec![other] };
    engine.boot(claim, [10, 77, 0, 10].into()).await.unwrap();
    let second = engine.nodes().await.unwrap().into_iter().find(|n| n.id != site.node.id).unwrap();
    let set = |network| engine.set_network(&second, operator(), Some(network));
    let taken = set(near("10.77.0.50/24")).await.unwrap_err();
    assert!(matches!(taken, EngineError::Network(NetworkError::Taken { .. })), "{taken}");
    assert_eq!(taken.problem().code, "bad-network");
    let port = StaticNetwork { mac: Some(MAC), ..near("10.77.0.51/24") };
    assert!(matches!(set(port).await, Err(EngineError::Network(NetworkError::OthersPort { .. }))));
    let lent = set(network("127.0.0.200/24")).await.unwrap_err();
    assert!(matches!(lent, EngineError::Network(_)), "{lent}");
    assert!(matches!(
        set(network("10.77.0.51/24")).await,
        Err(EngineError::Network(NetworkError::NoWay { .. }))
    ));
    engine.set_network(&site.node, operator(), None).await.unwrap();
    set(near("10.77.0.50/24")).await.unwrap();
    site.end().await;
}
