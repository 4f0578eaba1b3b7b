//! Where a machine's serial console is: `SerialConsole` of the system (DSP0268, ComputerSystem), in older services that of its
//! manager.

use std::net::SocketAddr;

use super::call::Call;
use super::json::View;
use super::quirks::Console;
use crate::BmcError;

/// Port of SSH (RFC 4253, section 4).
const SSH: u16 = 22;

/// How a console is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Serial {
    /// A shell.
    Ssh {
        port: u16,
        /// What is typed to get from the controller's own shell to the console.
        command: Option<String>,
    },
    /// Serial over LAN, at this port if it is not the usual one.
    Ipmi { port: Option<u16> },
}

impl Call<'_> {
    /// Where this machine's console is.
    pub(super) async fn serial(&self) -> Result<Serial, BmcError> {
        let (tree, system) = self.system().await?;
        let quirk = &tree.profile.console;
        if let Some(serial) = of_system(&system.view(self.origin()), quirk)? {
            return Ok(serial);
        }
        let none = || self.unsupported("a serial console");
        let manager = self.get_optional(tree.manager.as_ref().ok_or_else(none)?).await?.ok_or_else(none)?;
        let view = manager.view(self.origin());
        let protocols = self.get_linked(&view, "NetworkProtocol").await?;
        let protocols = protocols.as_ref().map(|p| p.view(self.origin()));
        of_manager(&view, protocols.as_ref(), quirk)?.ok_or_else(none)
    }

    /// The controller's address, for a protocol that takes no names.
    pub(super) async fn resolve(&self, host: &str, port: u16) -> Result<SocketAddr, BmcError> {
        let unknown = |why: String| BmcError::Unreachable { what: format!("its name {host}: {why}") };
        let looking = tokio::net::lookup_host((host.trim_matches(['[', ']']), port));
        let found = tokio::time::timeout(self.deadline.left(), looking).await;
        let mut found =
            found.map_err(|_| self.deadline.over("its name"))?.map_err(|e| unknown(e.to_string()))?;
        found.next().ok_or_else(|| unknown("it has no address".to_owned()))
    }
}

/// What the system says.
pub(super) fn of_system(system: &View<'_>, quirk: &Console) -> Result<Option<Serial>, BmcError> {
    let console = system.object("SerialConsole")?;
    if let Some(ssh) = enabled(&console, "SSH")? {
        let shared = ssh.boolean("SharedWithManagerCLI")?.unwrap_or_default();
        let told = ssh.string("ConsoleEntryCommand")?;
        let command = told.or_else(|| quirk.command.clone().filter(|_| shared));
        return Ok(Some(Serial::Ssh { port: port(&ssh)?.or(quirk.port).unwrap_or(SSH), command }));
    }
    Ok(match enabled(&console, "IPMI")? {
        Some(ipmi) => Some(Serial::Ipmi { port: port(&ipmi)? }),
        None => None,
    })
}

/// What its manager says (deprecated there since 2020). A shell is taken first where it is known how to get from it to the
/// console; `protocols` is the manager's `NetworkProtocol`.
pub(super) fn of_manager(
    manager: &View<'_>,
    protocols: Option<&View<'_>>,
    quirk: &Console,
) -> Result<Option<Serial>, BmcError> {
    let console = manager.object("SerialConsole")?;
    if console.boolean("ServiceEnabled")? == Some(false) {
        return Ok(None);
    }
    let kinds = console.texts("ConnectTypesSupported")?.unwrap_or_default();
    let told = match protocols {
        Some(protocols) => port(&protocols.object("SSH")?)?,
        None => None,
    };
    let ssh = Serial::Ssh { port: quirk.port.or(told).unwrap_or(SSH), command: quirk.command.clone() };
    let known = quirk.command.is_some() || quirk.port.is_some();
    Ok(match (kinds.contains(&"SSH"), kinds.contains(&"IPMI")) {
        (true, ipmi) if known || !ipmi => Some(ssh),
        (_, true) => Some(Serial::Ipmi { port: None }),
        _ => None,
    })
}

/// The object of this protocol, unless it is switched off.
fn enabled<'a>(console: &View<'a>, name: &str) -> Result<Option<View<'a>>, BmcError> {
    let protocol = console.object(name)?;
    let off = protocol.boolean("ServiceEnabled")? == Some(false);
    Ok(Some(protocol).filter(|p| p.exists() && !off))
}

/// A port; what is no port is none.
fn port(protocol: &View<'_>) -> Result<Option<u16>, BmcError> {
    let number = protocol.number("Port")?.filter(|n| n.fract() == 0.0 && (1.0..=65535.0).contains(n));
    Ok(number.map(|n| n as u16))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::address::{Origin, Transport};
    use super::*;

    fn view<T>(value: &Value, read: impl FnOnce(&View<'_>) -> T) -> T {
        let origin = Origin::parse("10.0.0.5", Transport::Tls).unwrap();
        read(&View::new(&origin, "/redfish/v1/Systems/1".into(), value))
    }

    fn system(console: Value, quirk: &Console) -> Option<Serial> {
        view(&json!({ "SerialConsole": console }), |v| of_system(v, quirk)).unwrap()
    }

    fn manager(kinds: &Value, quirk: &Console) -> Option<Serial> {
        let console = json!({ "SerialConsole": { "ServiceEnabled": true, "ConnectTypesSupported": kinds } });
        view(&console, |v| of_manager(v, None, quirk)).unwrap()
    }

    #[test]
    fn the_system_says_where_its_console_is() {
        let (plain, quirk) = (Console::default(), Console { command: Some("vsp".into()), port: None });
        let ssh =
            |port, command: Option<&str>| Some(Serial::Ssh { port, command: command.map(str::to_owned) });
        let told = json!({
            "SSH": { "ServiceEnabled": true, "Port": 2200, "ConsoleEntryCommand": "start /SP/console" },
            "IPMI": { "ServiceEnabled": true },
        });
        assert_eq!(system(told, &quirk), ssh(2200, Some("start /SP/console")));
        assert_eq!(system(json!({ "SSH": {} }), &quirk), ssh(22, None));
        assert_eq!(system(json!({ "SSH": { "SharedWithManagerCLI": true } }), &quirk), ssh(22, Some("vsp")));
        assert_eq!(system(json!({ "SSH": { "Port": 0.5 } }), &plain), ssh(22, None));
        let off = json!({ "SSH": { "ServiceEnabled": false }, "IPMI": { "Port": 6230 } });
        assert_eq!(system(off, &plain), Some(Serial::Ipmi { port: Some(6230) }));
        assert_eq!(system(json!({ "Telnet": { "ServiceEnabled": true } }), &plain), None);
        assert_eq!(system(Value::Null, &plain), None);
        let wrong = json!({ "SerialConsole": { "SSH": "yes" } });
        assert!(view(&wrong, |v| of_system(v, &plain)).is_err());
    }

    #[test]
    fn a_manager_says_how_and_the_quirk_where() {
        let (plain, quirk) = (Console::default(), Console { command: None, port: Some(2200) });
        let ipmi = Some(Serial::Ipmi { port: None });
        assert_eq!(manager(&json!(["IPMI", "SSH"]), &plain), ipmi, "a shell that leads nowhere is none");
        assert_eq!(manager(&json!(["IPMI", "SSH"]), &quirk), Some(Serial::Ssh { port: 2200, command: None }));
        assert_eq!(manager(&json!(["SSH"]), &plain), Some(Serial::Ssh { port: 22, command: None }));
        assert_eq!(manager(&json!(["Oem", "Telnet"]), &quirk), None);
    }
}
