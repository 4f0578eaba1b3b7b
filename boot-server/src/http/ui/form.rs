//! Fields of a form as a browser sends them, and which field a problem belongs to.

use crate::view::Problem;

/// Names and values in the order in which they came; a name may come more than once.
#[derive(Debug, Clone, Default)]
pub struct Fields(pub Vec<(String, String)>);

impl Fields {
    /// The first value of a field; empty where it was not sent.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    /// The first value without the white space around it, if anything is left.
    pub fn trimmed(&self, name: &str) -> Option<String> {
        Some(self.get(name).trim()).filter(|v| !v.is_empty()).map(str::to_owned)
    }

    /// A text of several lines, with the line ends that the form's encoding adds taken out (HTML, 4.10.22.7).
    pub fn text(&self, name: &str) -> String {
        self.get(name).replace("\r\n", "\n")
    }

    /// All values of a field.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// Problems at their fields.
#[derive(Debug, Default)]
pub struct Errors {
    pub image: Option<Problem>,
    pub disk: Option<Problem>,
    pub hostname: Option<Problem>,
    pub user: Option<Problem>,
    pub ssh_keys: Option<Problem>,
    pub password_hash: Option<Problem>,
    pub user_data: Option<Problem>,
    pub confirm: Option<Problem>,
}

impl Errors {
    /// Puts a problem to its field; gives it back where it belongs to none.
    pub fn place(&mut self, problem: Problem) -> Option<Problem> {
        let field = match problem.code.as_str() {
            "image-not-found" | "firmware-mismatch" | "architecture-mismatch" | "image-without-gpt" => {
                &mut self.image
            }
            "disk-not-found" | "disk-refused" | "disk-too-small" | "disk-ambiguous" | "sector-size" => {
                &mut self.disk
            }
            "hostname" => &mut self.hostname,
            "user" => &mut self.user,
            "ssh-key" => &mut self.ssh_keys,
            "password-hash" => &mut self.password_hash,
            "too-large" | "ignition" => &mut self.user_data,
            "confirm-missing" => &mut self.confirm,
            _ => return Some(problem),
        };
        *field = Some(problem);
        None
    }

    /// True where a field in the fold is wrong, so that it must be open.
    pub fn advanced(&self) -> bool {
        self.password_hash.is_some() || self.user_data.is_some()
    }

    /// True where nothing is wrong.
    pub fn is_empty(&self) -> bool {
        let all = [
            &self.image,
            &self.disk,
            &self.hostname,
            &self.user,
            &self.ssh_keys,
            &self.password_hash,
            &self.user_data,
            &self.confirm,
        ];
        all.iter().all(|p| p.is_none())
    }
}

/// A problem that the form itself finds.
pub fn problem(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Problem {
    Problem { status: 422, code: code.to_owned(), message: message.into(), hint: hint.into() }
}

/// The confirmation that is not the node's name.
pub fn not_confirmed(typed: &str, name: &str) -> Problem {
    not_the_name("server", typed, name)
}

/// The confirmation that is not the name of this, such as `volume`.
pub fn not_the_name(what: &str, typed: &str, name: &str) -> Problem {
    let message = if typed.is_empty() {
        "The name was not typed".to_owned()
    } else {
        format!("“{typed}” is not the name of this {what}")
    };
    problem("confirm-missing", message, format!("type {name}"))
}
