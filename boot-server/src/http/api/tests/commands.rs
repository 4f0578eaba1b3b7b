//! Every operation of the document can be reached from the command line: each has a command here that is run against the
//! real API, and the server must have been asked for just that operation and have understood it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use clap::Parser as _;

use super::lab::{Asked, Lab, TOKEN, raw_disk};
use crate::cli::{Cli, Failure, run};

/// Commands by the operations that they come to. `{dir}` is a directory with the files of [`files`]; `UUID` an id of nothing.
const COMMANDS: &[(&str, &str)] = &[
    ("accept_dpu", "dpu accept d1"),
    ("attach_volume", "volume -p red attach v1 web"),
    ("change_dpu", "dpu set d1 --datapath netdev"),
    ("change_volume", "volume -p red set v1 --name v2"),
    ("create_dpu", "dpu create d1"),
    ("set_dpu_bmc", "dpu set-bmc d1 --address 192.0.2.9 --user root --password-file {dir}/password"),
    ("trust_dpu_bmc", "dpu trust-bmc d1"),
    ("forget_dpu_bmc", "dpu forget-bmc d1"),
    ("enroll_dpu", "dpu enroll d1"),
    ("create_dpu_job", "dpu mode d1 nic"),
    ("list_dpu_jobs", "dpu jobs d1"),
    ("show_dpu_functions", "dpu functions show d1"),
    ("set_dpu_functions", "dpu functions set d1 --model bluefield3 --vfs 8"),
    ("clear_dpu_functions", "dpu functions clear d1"),
    ("list_dpu_models", "dpu functions models"),
    ("show_dpu_model", "dpu functions model bluefield3"),
    ("set_dpu_model", "dpu functions set-model bluefield3 --vfs 8"),
    ("clear_dpu_model", "dpu functions clear-model bluefield3"),
    ("show_dpu_job", "dpu job d1 UUID"),
    ("cancel_dpu_job", "dpu cancel d1 UUID"),
    ("create_snapshot", "snapshot -p red create s1 v1"),
    ("create_volume", "volume -p red create v1 --size 1G"),
    ("delete_dpu", "dpu delete d1"),
    ("delete_snapshot", "snapshot -p red delete s1"),
    ("delete_volume", "volume -p red delete v1"),
    ("detach_volume", "volume -p red detach v1"),
    ("force_detach_volume", "volume -p red detach v1 --force"),
    ("rollback_server", "server -p red rollback web"),
    ("evacuate_node", "node evacuate alpha"),
    ("export_site", "export --since 2026-11-27 --out {dir}/site.tar.zst"),
    ("list_bundles", "bundle list"),
    ("import_bundle", "bundle import nowhere.bundle --on-server"),
    ("upload_bundle", "bundle import {dir}/image.raw"),
    ("verify_bundle", "bundle verify nowhere.bundle --on-server"),
    ("switch_bundle", "bundle switch none"),
    ("list_certificates", "node certificates alpha"),
    ("show_certificate", "certificate show UUID"),
    ("list_cables", "node cable alpha"),
    ("list_dpus", "dpu list"),
    ("list_switches", "switch list"),
    ("set_cable", "node cable alpha 52:54:00:00:00:01 sw1 p1"),
    ("list_snapshots", "snapshot -p red list"),
    ("list_volume_types", "volume -p red types"),
    ("list_volumes", "volume -p red list"),
    ("show_dpu", "dpu show d1"),
    ("show_snapshot", "snapshot -p red show s1"),
    ("show_volume", "volume -p red show v1"),
    ("associate_floating_address", "floating -p red associate 203.0.113.9 web"),
    ("attach_port", "port -p red attach web nobody"),
    ("change_mirror", "mirror -p red set copy --name copies"),
    ("change_network", "network -p red set web --mtu 1450"),
    ("change_port", "port -p red set web --name shop"),
    ("change_provider_network", "provider set wan --shared true"),
    ("change_provider_subnet", "provider set-subnet wan public --name out"),
    ("change_router", "router -p red rename edge border"),
    ("change_security_group", "security-group -p red set web --rule ingress,tcp,22,10.0.0.0/8"),
    ("change_subnet", "subnet -p red set web --dns 10.0.0.1"),
    ("clear_router_gateway", "router -p red no-gateway border"),
    ("create_floating_address", "floating -p red create wan"),
    ("create_mirror", "mirror -p red create 198.51.100.9 --port web --direction ingress --name copy"),
    ("clear_cable", "node cable alpha 52:54:00:00:00:01 --clear"),
    ("create_network", "network -p red create web"),
    ("create_port", "port -p red create web --name web"),
    ("create_provider_network", "provider create wan physnet --vlan 7 --shared"),
    ("create_provider_subnet", "provider add-subnet wan 203.0.113.0/24 --name public"),
    ("create_router", "router -p red create edge"),
    ("create_security_group", "security-group -p red create web --rule egress"),
    ("create_subnet", "subnet -p red create web 10.0.0.0/24 --name web"),
    ("delete_floating_address", "floating -p red delete 203.0.113.3"),
    ("delete_mirror", "mirror -p red delete copies"),
    ("delete_network", "network -p red delete web"),
    ("delete_port", "port -p red delete shop"),
    ("delete_provider_network", "provider delete wan"),
    ("delete_provider_subnet", "provider remove-subnet wan out"),
    ("delete_router", "router -p red delete border"),
    ("delete_security_group", "security-group -p red delete web"),
    ("delete_subnet", "subnet -p red delete web"),
    ("detach_port", "port -p red detach web"),
    ("disassociate_floating_address", "floating -p red disassociate 203.0.113.3"),
    ("join_subnet", "router -p red join border web"),
    ("leave_subnet", "router -p red leave border web"),
    ("list_floating_addresses", "floating -p red list"),
    ("list_mirrors", "mirror -p red list"),
    ("list_networks", "network -p red list"),
    ("list_ports", "port -p red list --network web"),
    ("list_provider_networks", "provider list"),
    ("list_provider_subnets", "provider subnets wan"),
    ("list_routers", "router -p red list"),
    ("list_security_groups", "security-group -p red list"),
    ("list_subnets", "subnet -p red list"),
    ("overlay_status", "network status"),
    ("set_router_gateway", "router -p red gateway border wan"),
    ("show_floating_address", "floating -p red show 203.0.113.3"),
    ("show_mirror", "mirror -p red show copy"),
    ("show_network", "network -p red show web"),
    ("show_port", "port -p red show web"),
    ("show_provider_network", "provider show wan"),
    ("show_provider_subnet", "provider show-subnet wan public"),
    ("show_router", "router -p red show border"),
    ("show_security_group", "security-group -p red show web"),
    ("show_subnet", "subnet -p red show web"),
    ("accept_differences", "node accept alpha --reason seen"),
    ("act_on_nodes", "node act manage alpha --dry-run"),
    ("act_on_servers", "server -p red start web db"),
    ("add_image", "image add /nowhere/x.raw --name x --version 1 --on-server"),
    ("abort_node", "node abort alpha"),
    ("adopt_node", "node adopt alpha"),
    ("apply_baseline", "baseline apply plain alpha"),
    ("approve", "approval approve UUID"),
    ("assign_model", "model assign alpha --model r650"),
    ("audit_head", "audit head"),
    ("begin_totp", "me totp begin --password-file {dir}/password"),
    ("change_flavor", "flavor set small --description d"),
    ("change_own_password", "me password --password-file {dir}/password --new-password-file {dir}/password"),
    ("change_pool", "pool set spare --description d"),
    ("change_project", "project change red --description d"),
    ("change_server", "server -p red rename web shop"),
    ("change_user", "user change ada --full-name Ada"),
    ("check_network", "check-network"),
    ("clear_bmc_log", "bmc log alpha --clear"),
    ("clear_boot", "node boot alpha clear"),
    ("clear_network", "node network alpha --clear"),
    ("close_fault_report", "fault close UUID mended"),
    ("close_project", "project close red"),
    ("compare_with_baseline", "baseline diff plain alpha"),
    ("configure_console", "console set alpha bmc"),
    ("console_log", "console log alpha"),
    ("create_baseline", "baseline create more --bios A=1"),
    ("create_flavor", "flavor create big --cores 64.."),
    ("create_key", "key -p red add k {dir}/key.pub"),
    ("create_model", "model put {dir}/model.toml --new"),
    ("create_pool", "pool create fast"),
    ("create_project", "project create green"),
    ("create_project_token", "project token create red ci"),
    ("create_server_group", "group -p red create apart --policy anti-affinity"),
    ("create_servers", "server -p red create web --image tiny --node alpha"),
    ("create_token", "token create ci"),
    ("create_user", "user add ada --password-file {dir}/password"),
    ("delete_baseline", "baseline delete plain"),
    ("delete_expected_machine", "machine remove none"),
    ("delete_flavor", "flavor delete small"),
    ("delete_key", "key -p red remove k"),
    ("delete_model", "model delete r650"),
    ("delete_node", "node delete beta --confirm beta"),
    ("delete_pool", "pool delete spare"),
    ("delete_server", "server -p red delete web"),
    ("delete_server_group", "group -p red delete apart"),
    ("deploy_node", "node deploy alpha --image tiny --disk serial:S1 --yes alpha"),
    ("eject_media", "node media alpha eject"),
    ("end_console_session", "console end UUID"),
    ("end_own_session", "me end-session UUID"),
    ("enroll_node", "node enroll new --mac 52:54:00:00:00:99"),
    ("export_audit", "audit export --file {dir}/audit.ndjson"),
    ("export_usage", "usage export {dir}/usage.csv"),
    ("faults", "node faults"),
    ("finish_totp", "me totp confirm 123456"),
    ("forget_bmc", "bmc remove alpha"),
    ("forget_node", "node forget alpha"),
    ("identify_node", "node identify alpha"),
    ("import_bmcs", "bmc import {dir}/bmcs.csv --dry-run"),
    ("import_expected_machines", "machine import {dir}/machines.csv --dry-run"),
    ("insert_media", "node media alpha insert http://x.example/x.iso"),
    ("inspect_node", "node inspect alpha"),
    ("learn_model", "model learn alpha --name r650"),
    ("list_all_fault_reports", "fault list"),
    ("list_approvals", "approval list"),
    ("list_audit", "audit list"),
    ("list_baselines", "baseline list"),
    ("list_bmcs", "bmc list"),
    ("list_console_sessions", "console sessions"),
    ("list_events", "event list"),
    ("list_expected_machines", "machine list"),
    ("list_fault_reports", "server -p red faults"),
    ("list_flavors", "flavor list"),
    ("list_images", "image list"),
    ("list_ingests", "image ingests"),
    ("list_keys", "key -p red list"),
    ("list_members", "project member list red"),
    ("list_models", "model list"),
    ("list_nodes", "node list"),
    ("list_own_sessions", "me sessions"),
    ("list_pools", "pool list"),
    ("list_project_audit", "audit list --project red"),
    ("list_project_events", "event list --project red"),
    ("list_project_tokens", "project token list red"),
    ("list_projects", "project list"),
    ("list_racks", "rack list"),
    ("list_recordings", "console recordings"),
    ("list_rooms", "rack rooms"),
    ("list_server_groups", "group -p red list"),
    ("list_servers", "server -p red list"),
    ("list_tokens", "token list"),
    ("list_users", "user list"),
    ("login", "login --user nobody --password-file {dir}/password"),
    ("maintain_node", "node maintenance alpha --reason fan"),
    ("manage_node", "node manage alpha"),
    ("me", "me show"),
    ("node_expected", "node expected alpha"),
    ("node_faults", "node faults alpha"),
    ("order_boot", "node boot alpha disk"),
    ("place_node", "node place alpha --rack R1"),
    ("preview_deploy", "node deploy alpha --image tiny --disk serial:S1 --dry-run"),
    ("provide_node", "node provide gamma"),
    ("put_baseline", "baseline create plain --bios A=1 --replace"),
    ("put_model", "model put {dir}/model.toml"),
    ("put_papers", "node papers alpha --purchased 2025-01-31"),
    ("read_bios", "node bios alpha"),
    ("read_bmc_identity", "bmc identity alpha"),
    ("read_bmc_log", "bmc log alpha"),
    ("read_boot_device", "node boot-device alpha"),
    ("read_components", "bmc components alpha"),
    ("read_firmware", "node firmware alpha"),
    ("read_media", "node media alpha show"),
    ("read_power", "node power alpha"),
    ("read_secure_boot", "node secure-boot alpha"),
    ("read_sensors", "bmc sensors alpha"),
    ("rebuild_node", "node rebuild beta --image tiny --disk serial:S1 --yes beta"),
    ("reboot_server", "server -p red reboot web"),
    ("refresh_plan", "node refresh-plan"),
    ("refuse", "approval refuse UUID"),
    ("reinstall_server", "server -p red reinstall web"),
    ("remove_image", "image remove none"),
    ("remove_member", "project member remove red ada"),
    ("remove_totp", "me totp remove --password-file {dir}/password"),
    ("remove_user_totp", "user totp ada --remove"),
    ("rename_node", "node rename alpha omega"),
    ("replace_node", "node replace beta --with alpha --dry-run"),
    ("report_fault", "server -p red report web broken"),
    ("reset_bmc", "bmc reset alpha"),
    ("reset_console", "console reset alpha"),
    ("retire_node", "node retire alpha --reason old"),
    ("approve_boot", "node approve-boot alpha --boot 1"),
    ("pin_tpm", "node tpm pin alpha --ek 0000000000000000000000000000000000000000000000000000000000000001"),
    ("unpin_tpm", "node tpm unpin alpha"),
    ("learn_measured", "model learn-pcrs m1 --node alpha --pcrs 4,7"),
    ("retry_node", "node retry alpha"),
    ("revoke_project_token", "project token revoke red ci"),
    ("revoke_token", "token revoke ci"),
    ("rotate_bmc", "bmc rotate alpha"),
    ("scan_bmcs", "bmc scan 127.0.0.0/30"),
    ("sensor_history", "bmc sensors alpha --history 1h"),
    ("service_node", "node service alpha --secure-boot on"),
    ("set_bmc", "bmc set alpha --driver manual"),
    ("set_boot_device", "node boot-device alpha pxe"),
    ("set_member", "project member add red ada"),
    ("set_network", "node network alpha 10.77.0.50/24"),
    ("set_node_pool", "pool put spare alpha"),
    ("set_node_tags", "pool tag alpha fast"),
    ("set_quota", "quota -p red set --servers 9"),
    ("set_user_password", "user password ada --password-file {dir}/password"),
    ("show_all_usage", "usage show"),
    ("show_approval", "approval show UUID"),
    ("show_baseline", "baseline show plain"),
    ("show_bmc", "bmc show alpha"),
    ("show_catalogue", "catalogue -p red"),
    ("show_console", "console show alpha"),
    ("show_flavor", "flavor show small"),
    ("show_image", "image show tiny"),
    ("show_model", "model show r650"),
    ("show_node", "node show alpha"),
    ("show_pool", "pool show spare"),
    ("show_project", "project show red"),
    ("show_project_sla", "sla -p red"),
    ("show_quota", "quota -p red show"),
    ("show_recording", "console play UUID"),
    ("show_server", "server -p red show web"),
    ("show_server_group", "group -p red show apart"),
    ("show_sla", "sla"),
    ("show_usage", "usage -p red show"),
    ("show_user", "user show ada"),
    ("sign_out_user", "user sign-out ada"),
    ("start_server", "server -p red start web"),
    ("status", "status"),
    ("stop_server", "server -p red stop web"),
    ("switch_power", "node power alpha on"),
    ("trust_bmc", "bmc trust alpha"),
    ("try_placement", "placement try --node alpha"),
    ("upload_image", "image add {dir}/image.raw --name other --version 1"),
    ("usage_key", "usage key"),
    ("verify_audit", "audit verify"),
    ("verify_image", "image verify tiny"),
    ("image_manifest", "image manifest tiny --to {dir}/manifest.json"),
    ("sign_image", "image signature tiny --by-server"),
    ("list_site_keys", "site key show"),
    ("trust_site_key", "site key trust {dir}/vendor.pub --title vendor"),
    ("distrust_site_key", "site key distrust EFB568065BCA8E5E"),
    ("rotate_site_key", "site key rotate"),
    ("import_site_key", "site key import {dir}/vendor.pub --forget"),
];

/// Operations without a command that this test could run, and why.
const BESIDE: &[(&str, &str)] = &[
    ("attach_console", "a websocket until it is left: `billet node console`, run by tests/tests/console.rs"),
    ("attach_server_console", "a websocket until it is left: `billet server console`"),
    ("openapi", "the document itself, for programs"),
    ("set_bios", "`billet node service --bios` does it as a job, and reads back what came of it"),
    ("set_secure_boot", "`billet node secure-boot` does it as a job, and reads back what came of it"),
    ("show_ingest", "`billet image add --on-server` follows it, where the server takes the image in"),
    ("stream_events", "does not end: `billet event follow`, and `--watch` of every list"),
    ("stream_project_events", "does not end: `billet event follow --project`, and `--watch`"),
];

/// Notes what the server is asked for.
pub(super) async fn note(State(asked): State<Asked>, request: Request, next: Next) -> Response {
    let what = (request.method().to_string(), request.uri().path().to_owned());
    let response = next.run(request).await;
    asked.lock().unwrap().push((what.0, what.1, response.status().as_u16()));
    response
}

/// Operations of the document: id, method, path as a list of its parts.
fn operations() -> Vec<(String, String, Vec<String>)> {
    let document = serde_json::to_value(crate::http::api::document()).unwrap();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            all.push((id, method.to_uppercase(), path.split('/').map(str::to_owned).collect()));
        }
    }
    assert!(all.len() > 150, "{} operations", all.len());
    all
}

/// The operation that a request is for; a path without names in it comes before one with.
fn operation<'a>(all: &'a [(String, String, Vec<String>)], method: &str, path: &str) -> Option<&'a str> {
    let parts: Vec<&str> = path.split('/').collect();
    let fits = |template: &[String]| {
        let same = |(template, part): (&String, &&str)| template.starts_with('{') || template == part;
        template.len() == parts.len() && template.iter().zip(&parts).all(same)
    };
    let fitting = all.iter().filter(|(_, m, template)| m == method && fits(template));
    fitting
        .min_by_key(|(_, _, t)| t.iter().filter(|part| part.starts_with('{')).count())
        .map(|o| o.0.as_str())
}

fn files(lab: &Lab) {
    let write = |name: &str, content: &[u8]| fs::write(lab.dir.join(name), content).unwrap();
    write("password", b"correct horse battery\n");
    write(
        "key.pub",
        b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE5hbWVzIGFyZSB0ZXh0LCBuZXZlciBtYXJrdXAh ops@example\n",
    );
    write("bmcs.csv", b"node,driver\nalpha,manual\n");
    write("machines.csv", b"name,serial\nlater,SN-LATER\n");
    write("model.toml", b"name = \"r650\"\n");
    write("image.raw", &raw_disk(9));
    write("vendor.pub", b"RWRejspbBmi174ULzYsWdulwMN5T0R3Ml1xu3vnrvp+6GEGyPb2v4Q5Y\n");
}

async fn command(lab: &Lab, line: &str) -> Result<(), Failure> {
    let line = line.replace("{dir}", lab.dir.to_str().unwrap());
    let line = line.replace("UUID", "00000000-0000-4000-8000-000000000000");
    let mut cli = Cli::try_parse_from(["billet"].into_iter().chain(line.split(' '))).unwrap();
    cli.connection.server = Some(format!("http://{}", lab.address));
    cli.connection.token = Some(TOKEN.to_owned());
    let done = tokio::task::spawn_blocking(move || run(&cli.connection, cli.output, cli.command));
    done.await.unwrap()
}

#[test]
fn every_operation_has_a_command_or_a_reason() {
    let there: BTreeSet<String> = operations().into_iter().map(|(id, ..)| id).collect();
    let mut named = BTreeMap::new();
    for (id, what) in COMMANDS.iter().chain(BESIDE) {
        assert!(named.insert(*id, *what).is_none(), "{id} is named twice");
        assert!(there.contains(*id), "{id} is no operation any more");
    }
    let missing: Vec<_> = there.iter().filter(|id| !named.contains_key(id.as_str())).collect();
    assert!(missing.is_empty(), "operations that no command reaches: {missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_asks_for_its_operation() {
    let lab = Lab::new().await;
    files(&lab);
    lab.project("red").await;
    assert_eq!(lab.upload("name=tiny&version=1", raw_disk(1)).await.status, 201);
    for made in ["flavor create small", "pool create spare", "user add bob --no-password"] {
        command(&lab, made).await.unwrap();
    }
    command(&lab, "user add ada --password-file {dir}/password").await.unwrap();
    let all = operations();
    // In the order of what must be there before: what removes something comes last.
    let removes = |id: &str| {
        ["delete_", "close_project", "forget_node", "rename_node", "remove_"]
            .iter()
            .any(|word| id.starts_with(word))
    };
    let (last, first): (Vec<_>, Vec<_>) = COMMANDS.iter().partition(|(id, _)| removes(id));
    let mut wrong = Vec::new();
    for (id, line) in first.into_iter().chain(last) {
        lab.asked.lock().unwrap().clear();
        let outcome = command(&lab, line).await;
        let asked = lab.asked.lock().unwrap().clone();
        let of_it = |(method, path, _): &&(String, String, u16)| operation(&all, method, path) == Some(id);
        match asked.iter().find(of_it) {
            // It may refuse for what it is; it must have understood.
            Some((.., status)) if !matches!(status, 400 | 405 | 415) => {}
            Some(answered) => wrong.push(format!("{id}: `{line}`: {answered:?}: {outcome:?}")),
            None => wrong.push(format!("{id}: `{line}` asked for {asked:?}: {outcome:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_request_is_told_from_its_neighbours() {
    let all = operations();
    assert_eq!(operation(&all, "GET", "/api/v1/nodes/alpha"), Some("show_node"));
    assert_eq!(operation(&all, "POST", "/api/v1/nodes/actions"), Some("act_on_nodes"));
    assert_eq!(operation(&all, "POST", "/api/v1/no-such-thing"), None);
}
