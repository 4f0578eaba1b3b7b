//! A server of images for virtual media, to whoever asks.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};

use anyhow::Result;

/// Serves these octets; returns their URL, which ends in `name`. Ends with the process.
///
/// # Errors
/// Where no port can be had.
pub fn serve(name: &str, content: Vec<u8>) -> Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let url = format!("http://{}/{name}", listener.local_addr()?);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            // A client that goes away is no error.
            let _ = stream.read(&mut request);
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&content));
        }
    });
    Ok(url)
}
