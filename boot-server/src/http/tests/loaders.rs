//! What loaders other than x64 iPXE get: arm64 kernels, shim's second stage, GRUB's configurations; and the agent that no
//! loader gave a nonce.

use protocol::agent::Introduction;

use super::*;

const GRUB_NODE: &str = "/grub/node/52:54:00:00:00:01_00000000-0000-0000-0000-00000000abcd.cfg";

impl Server {
    fn put(&self, path: &str, bytes: &[u8]) {
        let path = self.scratch.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn arm64_gets_its_own_kernel() {
    let server = Server::start().await;
    let ask = "/boot/ipxe?mac=52-54-00-00-00-0a&uuid=&platform=efi&buildarch=arm64";
    let refused = server.get(ask).await.text();
    assert!(refused.contains("echo Billet: kernel or ramdisk is missing") && !refused.contains("\nkernel "));
    assert_eq!(server.get("/boot/files/vmlinuz-arm64").await.status, 404);
    server.put("boot/arm64/vmlinuz", b"an arm64 kernel");
    server.put("boot/arm64/initramfs.zst", b"an arm64 ramdisk");
    let script = server.get(ask).await.text();
    let base = format!("http://{}", server.address);
    for part in ["vmlinuz-arm64 ", "initramfs-arm64 "] {
        assert!(script.contains(&format!("{base}/boot/files/{part}")), "{script}");
    }
    assert_eq!(server.get("/boot/files/vmlinuz-arm64").await.body, b"an arm64 kernel");
    assert!(server.get("/boot/files/initramfs-arm64").await.body.starts_with(b"an arm64 ramdisk"));
    let x64 = server.get("/boot/ipxe?mac=52-54-00-00-00-01&uuid=&buildarch=i386").await.text();
    assert!(x64.contains(&format!("{base}/boot/files/vmlinuz ")), "{x64}");
    for (name, bytes) in [("ipxe-arm64.efi", b"one"), ("snponly-arm64.efi", b"two")] {
        server.put(&format!("loaders/{name}"), bytes);
        assert_eq!(server.get(&format!("/boot/files/{name}")).await.body, bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shim_and_grub() {
    let server = Server::start().await;
    server.put("loaders/shimx64.efi.signed", b"shim");
    server.put("loaders/grubnetx64.efi.signed", b"grub");
    server.put("loaders/uki-x64.efi", b"everything");
    assert_eq!(server.get("/boot/files/shimx64.efi").await.body, b"shim");
    assert_eq!(server.get("/boot/files/uki-x64.efi").await.body, b"everything");
    // So does shim join its directory and the name.
    assert_eq!(server.get("/boot/files//grubx64.efi").await.body, b"grub");
    let start = server.get("/grub/grub.cfg").await;
    assert!(start.text().contains("source \"$prefix/node/"), "{}", start.text());
    let config = server.get(GRUB_NODE).await.text();
    let server_arg = format!("'billet.server=http://{}'", server.address);
    for part in ["if linux '/boot/files/vmlinuz'", "initrd '/boot/files/initramfs'", server_arg.as_str()] {
        assert!(config.contains(part), "{part} not in {config}");
    }
    let head = server.ask("HEAD", GRUB_NODE, "", "").await;
    // GRUB knows it in this spelling only.
    assert!(head.head.contains("\r\nContent-Length: "), "{}", head.head);
    assert_eq!(
        (head.header("content-length"), head.body.len()),
        (Some(config.len().to_string().as_str()), 0)
    );
    for missing in ["/grub/x86_64-efi/command.lst", "/grub/node/x.cfg", "/boot/files/revocations_sku.efi"] {
        assert_eq!(server.get(missing).await.status, 404, "{missing}");
    }
    let config = server.get(GRUB_NODE).await.text();
    let nonce = config.split("'billet.nonce=").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    let hello = hello(nonce, vec!["52:54:00:00:00:01".parse().unwrap()]);
    let reply = server.ask("POST", "/agent/v1/hello", "", &serde_json::to_string(&hello).unwrap()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_a_nonce_asks_for_one() {
    let server = Server::start().await;
    let mut hello = hello(String::new(), vec!["52:54:00:00:00:01".parse().unwrap()]);
    let body = serde_json::to_string(&hello).unwrap();
    let refused = server.ask("POST", "/agent/v1/hello", "", &body).await;
    assert!([401, 403].contains(&refused.status), "{}", refused.text());
    let reply = server.ask("POST", "/agent/v1/introduction", "", &body).await;
    let Ok(Introduction::Nonce { nonce }) = serde_json::from_slice(&reply.body) else {
        panic!("{}", reply.text());
    };
    hello.nonce = nonce;
    let body = serde_json::to_string(&hello).unwrap();
    assert_eq!(server.ask("POST", "/agent/v1/hello", "", &body).await.status, 200);
}
