//! The socket: one frontend at a time, each after the other, for as long as we live.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use vhost::vhost_user::{BackendReqHandler, Error};

use crate::device::Device;
use crate::event::{Event, say};
use crate::session::Session;

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {}", path.display())]
pub struct ListenError {
    /// The socket.
    path: PathBuf,
    /// Why.
    #[source]
    cause: io::Error,
}

/// Listens on `path`, in the place of a socket that a dead predecessor left there.
///
/// # Errors
/// Where something other than a socket is there, or the directory cannot be written.
pub fn listen(path: &Path) -> Result<UnixListener, ListenError> {
    let failed = |cause| ListenError { path: path.to_owned(), cause };
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path).map_err(failed)?,
        Ok(_) => return Err(failed(io::ErrorKind::AlreadyExists.into())),
        Err(_) => {}
    }
    UnixListener::bind(path).map_err(failed)
}

/// Serves `device` to whoever connects.
///
/// # Errors
/// Where the listener fails.
pub fn serve(listener: &UnixListener, device: &Device) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        say(&Event::Connected);
        let session = Arc::new(Mutex::new(Session::new(device.clone())));
        let mut handler = BackendReqHandler::from_stream(stream, session);
        let end = loop {
            match handler.handle_request() {
                // A request that was refused; the frontend was told, or goes away by itself.
                Ok(())
                | Err(Error::ReqHandlerError(_) | Error::InvalidOperation(_) | Error::InvalidParam) => {}
                Err(error) => break error,
            }
        };
        drop(handler);
        say(&Event::Disconnected { reason: end.to_string() });
    }
}
