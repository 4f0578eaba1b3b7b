//! What each form says, and what it keeps from whom.

use uuid::Uuid;

use super::*;

fn instance() -> Instance {
    Instance {
        id: JobId(Uuid::from_u128(7)),
        hostname: "web-1".to_owned(),
        image: "debian-12 1".to_owned(),
        architecture: "x86_64".to_owned(),
        created: Timestamp(1),
        ssh_keys: vec!["ssh-ed25519 AAAA a".to_owned(), "ssh-rsa BBBB b".to_owned()],
        macs: vec![MacAddr([0x52, 0x54, 0, 0, 0, 1]), MacAddr([0x52, 0x54, 0, 0, 0, 2])],
        port: Some(MacAddr([0x52, 0x54, 0, 0, 0, 1])),
        network: None,
        network_config: None,
        user_data: Some("#cloud-config\npassword: SECRET-USER\n".to_owned()),
        vendor_data: "#cloud-config\n{\"x\": \"SECRET-VENDOR\"}\n".to_owned(),
    }
}

fn fixed() -> Instance {
    let network = r#"{"address":"10.77.0.50/24","gateway":"10.77.0.1","dns":["10.77.0.53"]}"#;
    Instance { network: serde_json::from_str(network).unwrap(), ..instance() }
}

const ADDRESS: Option<Ipv4Addr> = Some(Ipv4Addr::new(10, 77, 0, 60));

/// Every path that listings lead to, with what stands there.
fn walk(instance: &Instance, at: &str, proof: Proof, out: &mut Vec<(String, Found)>) {
    let found = look(instance, at, ADDRESS, proof);
    if let Found::Listing(names) = &found {
        for name in names.lines() {
            let name = name.split('=').next().unwrap_or_default().trim_end_matches('/');
            walk(instance, &format!("{at}/{name}"), proof, out);
        }
    }
    out.push((at.to_owned(), found));
}

#[test]
fn every_form_in_full() {
    let mut text = String::new();
    for (instance, roots) in [
        (instance(), &["latest", "openstack/latest", "openstack/2012-08-10"][..]),
        (fixed(), &["latest/meta-data/local-ipv4", "openstack/latest/network_data.json"]),
    ] {
        for root in roots {
            let mut found = Vec::new();
            walk(&instance, root, Proof::Token, &mut found);
            for (path, found) in found {
                let body = match found {
                    Found::File { kind, text } => format!("({kind})\n{text}"),
                    Found::Listing(names) => format!("(names)\n{names}\n"),
                    other => panic!("{path}: {other:?}"),
                };
                text.push_str(&format!("== {path} {}\n", body.trim_end()));
            }
        }
    }
    insta::assert_snapshot!(text);
}

#[test]
fn nocloud_is_what_the_disk_would_have() {
    let file = |path: &str| match look(&instance(), path, None, Proof::Token) {
        Found::File { text, .. } => text,
        other => panic!("{path}: {other:?}"),
    };
    assert!(file("meta-data").contains("\"instance-id\": \"00000000-0000-0000-0000-000000000007\""));
    assert_eq!(file("user-data"), instance().user_data.unwrap());
    assert_eq!(file("vendor-data"), instance().vendor_data);
    assert_eq!(look(&instance(), "network-config", None, Proof::Token), Found::Nothing);
}

#[test]
fn the_network_alone_gives_no_secret() {
    let weak = Proof::Network { secrets: false };
    let mut found = Vec::new();
    for root in ["", "latest", "openstack/latest"] {
        walk(&instance(), root, weak, &mut found);
    }
    for version in EC2_VERSIONS {
        walk(&instance(), version, weak, &mut found);
    }
    let withheld = found.iter().filter(|(_, found)| *found == Found::Secret).count();
    assert!(withheld >= 4, "{found:?}");
    let given = found.iter().filter(|(_, found)| matches!(found, Found::File { .. })).count();
    assert!(given > 20, "{given}");
    for (path, found) in found {
        if let Found::File { text, .. } = found {
            assert!(!text.contains("SECRET"), "{path}: {text}");
        }
    }
    let allowed = look(&instance(), "latest/user-data", None, Proof::Network { secrets: true });
    assert!(matches!(allowed, Found::File { text, .. } if text.contains("SECRET-USER")));
}

#[test]
fn paths_that_lead_nowhere() {
    for path in [
        "x",
        "latest/x",
        "openstack/2011-01-01/meta_data.json",
        "openstack/latest/../latest",
        "latest/meta-data/..",
        "latest/meta-data/public-keys/9/openssh-key",
        "openstack/2012-08-10/network_data.json",
        "2030-01-01/meta-data",
        &"latest/".repeat(60),
    ] {
        assert_eq!(look(&instance(), path, ADDRESS, Proof::Token), Found::Nothing, "{path}");
    }
    assert_eq!(
        look(&instance(), "openstack/", ADDRESS, Proof::Token),
        look(&instance(), "openstack", None, Proof::Token)
    );
}
