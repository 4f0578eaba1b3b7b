//! How much hangs on a request, by its method and the template of its path. What is not known is destructive: a new route
//! is let off only by a line here.

/// How much hangs on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// It changes nothing and tells nothing of anybody: not in the audit.
    Nothing,
    /// It looks.
    Read,
    /// Somebody wants to come in: what came of it, and who it was, is known afterwards alone.
    Login,
    /// It changes what can be changed back.
    Change,
    /// It may lose data, stop a machine, or open or close a door: not without the audit.
    Destructive,
}

/// Paths that are looked at all the time, and by programs.
const UNWATCHED: [&str; 4] = ["/static/{tag}/{name}", "/healthz", "/metrics", "/api/v1/openapi.json"];

/// Paths by `POST` that only ask what would be.
const QUESTIONS: [&str; 3] =
    ["/api/v1/nodes/{node}/deploy/preview", "/nodes/{node}/preview", "/api/v1/audit/verify"];

/// Ways in. The last one is where the OpenID provider sends a browser back to.
const LOGINS: [&str; 3] = ["/login", "/api/v1/login", "/oidc/callback"];

/// A server gets another name.
const RENAME_SERVER: (&str, &str) = ("PATCH", "/api/v1/projects/{project}/servers/{server}");

/// Last parts of paths that change what can be changed back.
const MILD: [&str; 29] = [
    "abort",
    "check",
    "identify",
    "inspect",
    "logout",
    "look",
    "maintenance",
    "manage",
    "name",
    "network",
    "notes",
    "pause",
    "place",
    "preview",
    "refuse",
    "rename",
    "retry",
    "start",
    "tags",
    "verify",
    "faults",
    // Networks of projects. What opens or closes a door is not here: security groups, ways out, floating addresses, mirrors,
    // and who is plugged in.
    "networks",
    "subnets",
    "ports",
    "routers",
    "{network}",
    "{subnet}",
    "{port}",
    "{router}",
];

/// How much hangs on a request for this template; `None` where no route has the path.
pub fn weight(method: &str, template: Option<&str>) -> Weight {
    let looks = matches!(method, "GET" | "HEAD" | "OPTIONS");
    let Some(template) = template else {
        return if looks { Weight::Nothing } else { Weight::Change };
    };
    if LOGINS.contains(&template) && (!looks || template == "/oidc/callback") {
        return Weight::Login;
    }
    if looks {
        return if UNWATCHED.contains(&template) { Weight::Nothing } else { Weight::Read };
    }
    let last = template.rsplit('/').next().unwrap_or_default();
    let mild = (method, template) == RENAME_SERVER || method != "DELETE" && MILD.contains(&last);
    match () {
        () if QUESTIONS.contains(&template) => Weight::Read,
        () if mild => Weight::Change,
        () => Weight::Destructive,
    }
}

/// True where a request can destroy something of one node (or of the server that somebody has of it), so that a pool may ask
/// for four eyes; or can end that a pool asks.
pub fn may_need_two(method: &str, template: &str) -> bool {
    let of_one = template.contains("/{node}") || template.contains("/servers/{server}");
    let console = template.contains("/console");
    (of_one || may_close_eyes(template)) && !console && weight(method, Some(template)) == Weight::Destructive
}

/// True for what changes a pool: by API, and by the form of its page.
pub fn may_close_eyes(template: &str) -> bool {
    matches!(template, "/api/v1/pools/{pool}" | "/pools")
}

/// Last parts of paths whose requests change the database alone, in one transaction with its line in the audit: then it was done,
/// or nothing of it was.
const ONE_TRANSACTION: [&str; 12] = [
    "deploy",
    "rebuild",
    "delete",
    "provide",
    "boot",
    "service",
    "forget",
    "reinstall",
    "{node}",
    "{server}",
    "{pool}",
    "pools",
];

/// True for what changes the database alone, in one transaction.
pub fn is_one_transaction(template: &str) -> bool {
    ONE_TRANSACTION.contains(&template.rsplit('/').next().unwrap_or_default())
}

/// True where a body asks for nothing that can be lost, though others at the same path do: switching on.
pub fn is_mild_body(template: &str, body: &[u8]) -> bool {
    if !template.ends_with("/power") {
        return false;
    }
    let json = serde_json::from_slice::<serde_json::Value>(body).ok();
    let action = json.as_ref().and_then(|json| json.get("action")?.as_str());
    action == Some("on") || body.split(|b| *b == b'&').any(|pair| pair == b"action=on")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_destructive() {
        let of = |method, template| weight(method, Some(template));
        for template in [
            "/api/v1/nodes/{node}/deploy",
            "/api/v1/nodes/{node}/rebuild",
            "/api/v1/nodes/{node}/delete",
            "/api/v1/nodes/{node}/power",
            "/nodes/{node}/bmc",
            "/api/v1/whatever/comes/next",
        ] {
            assert_eq!(of("POST", template), Weight::Destructive, "{template}");
        }
        assert_eq!(of("DELETE", "/api/v1/images/{image}"), Weight::Destructive);
        assert_eq!(of("DELETE", "/api/v1/nodes/{node}/network"), Weight::Destructive);
        assert_eq!(of("POST", "/api/v1/nodes/{node}/rename"), Weight::Change);
        assert_eq!(of("POST", "/api/v1/nodes/{node}/deploy/preview"), Weight::Read);
        assert_eq!(of("GET", "/api/v1/nodes"), Weight::Read);
        assert_eq!(of("GET", "/healthz"), Weight::Nothing);
        let ways_in = [("POST", "/login"), ("POST", "/api/v1/login"), ("GET", "/oidc/callback")];
        assert!(ways_in.iter().all(|(method, path)| of(method, path) == Weight::Login));
        assert_eq!((of("GET", "/login"), of("GET", "/oidc/login")), (Weight::Read, Weight::Read));
        assert_eq!((weight("GET", None), weight("POST", None)), (Weight::Nothing, Weight::Change));
    }

    #[test]
    fn two_are_needed_for_what_one_node_can_lose() {
        assert!(may_need_two("POST", "/api/v1/nodes/{node}/rebuild"));
        assert!(may_need_two("DELETE", "/api/v1/nodes/{node}/bmc"));
        assert!(may_need_two("DELETE", "/api/v1/projects/{project}/servers/{server}"));
        assert!(may_need_two("POST", "/my/{project}/servers/{server}/{verb}"));
        assert!(may_need_two("PUT", "/api/v1/pools/{pool}") && may_need_two("POST", "/pools"));
        for (method, template) in [
            ("GET", "/api/v1/nodes/{node}"),
            ("POST", "/api/v1/nodes/{node}/maintenance"),
            ("POST", "/api/v1/nodes/{node}/console"),
            ("DELETE", "/api/v1/images/{image}"),
        ] {
            assert!(!may_need_two(method, template), "{method} {template}");
        }
    }

    #[test]
    fn switching_on_loses_nothing() {
        let power = "/api/v1/nodes/{node}/power";
        assert!(
            is_mild_body(power, br#"{"action":"on"}"#) && is_mild_body("/nodes/{node}/power", b"action=on")
        );
        assert!(
            !is_mild_body(power, br#"{"action":"off"}"#) && !is_mild_body("/x/deploy", br#"{"action":"on"}"#)
        );
        assert!(!is_mild_body(power, br#"{"action":"off","x":"&action=on"}"#));
    }
}
