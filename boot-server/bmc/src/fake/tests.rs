//! The machine in memory does what it says, and each fault is what it is called.

use super::*;
use crate::ErrorKind;

fn pair() -> (Machine, Driver) {
    let machine = Machine::new(Identity { serial: Some("F-1".into()), ..Identity::default() });
    (machine.clone(), Driver::new(machine))
}

#[tokio::test]
async fn it_does_what_it_is_asked() {
    let (machine, driver) = pair();
    let pxe = BootOverride { device: BootDevice::Pxe, repeat: Repeat::Once, mode: None, http_uri: None };
    driver.set_boot_override(&pxe).await.unwrap();
    assert_eq!(driver.boot_override().await.unwrap(), pxe);
    driver.power(PowerAction::On).await.unwrap();
    assert_eq!(driver.power_state().await.unwrap(), PowerState::On);
    assert_eq!(driver.boot_override().await.unwrap().device, BootDevice::None, "used up by the start");
    driver.power(PowerAction::ForceOff).await.unwrap();
    assert_eq!(driver.power(PowerAction::Reset).await.unwrap_err().kind(), ErrorKind::Refused);
    driver.identify(true).await.unwrap();
    assert!(machine.is_identified());
    assert_eq!(driver.identity().await.unwrap().serial.as_deref(), Some("F-1"));
    machine.log_line(None, Severity::Ok, "one");
    machine.log_line(Some(Timestamp(5)), Severity::Critical, "two");
    let all = driver.log(None).await.unwrap();
    let cursor = LogCursor { id: all[0].id.clone(), at: None };
    assert_eq!(driver.log(Some(&cursor)).await.unwrap(), all[1..]);
    assert_eq!(machine.actions(), [PowerAction::On, PowerAction::ForceOff, PowerAction::Reset]);
}

#[tokio::test(start_paused = true)]
async fn each_fault_is_what_it_is_called() {
    let (machine, driver) = pair();
    let faults = [
        (Fault::Hang, ErrorKind::TimedOut),
        (Fault::Unreachable, ErrorKind::Unreachable),
        (Fault::WrongLogin, ErrorKind::Login),
        (Fault::Refuses("no".into()), ErrorKind::Refused),
    ];
    for (fault, kind) in faults {
        machine.set_fault(Some(fault));
        assert_eq!(driver.power(PowerAction::On).await.unwrap_err().kind(), kind);
        assert_eq!(driver.readings().await.unwrap_err().kind(), kind);
    }
    machine.set_fault(Some(Fault::Slow(Duration::from_secs(9))));
    let start = tokio::time::Instant::now();
    driver.power_state().await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(9));
    machine.set_fault(Some(Fault::Lies));
    driver.power(PowerAction::On).await.unwrap();
    assert_eq!(driver.power_state().await.unwrap(), PowerState::Off);
    assert_eq!(machine.actions(), [PowerAction::On], "only the liar was reached");
}

#[tokio::test]
async fn its_console_echoes_for_one_at_a_time() {
    let (machine, driver) = pair();
    driver.power(PowerAction::On).await.unwrap();
    let mut console = driver.console().await.unwrap();
    assert_eq!(driver.console().await.err().map(|e| e.kind()), Some(ErrorKind::Busy));
    machine.print(b"login: ");
    let mut said = [0; 7];
    console.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"login: ");
    console.write_all(b"root").await.unwrap();
    console.read_exact(&mut said[..4]).await.unwrap();
    assert_eq!(&said[..4], b"root");
    drop(console);
    while driver.console().await.is_err() {
        tokio::task::yield_now().await;
    }
}
