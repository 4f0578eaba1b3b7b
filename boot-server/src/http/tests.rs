//! The provisioning listener over loopback.
