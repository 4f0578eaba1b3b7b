//! What a controller can do wrong.

/// A fault. It holds until another one is set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Fault {
    /// It works.
    #[default]
    None,
    /// It takes the request and never answers.
    Hang,
    /// It answers with a body of one octet a second.
    SlowBody,
    /// It says 204 to every change and changes nothing.
    Lies,
    /// The next change meets a resource that somebody else changed in between (412).
    ChangedBetween,
    /// It answers the TLS handshake with other octets.
    JunkTls,
    /// Bodies of 1 GiB, that begin as JSON.
    HugeBody,
    /// As [`Fault::HugeBody`], without saying how long.
    HugeChunkedBody,
    /// Every read after the service root is redirected there.
    RedirectTo(String),
    /// Every change is redirected there.
    RedirectChangesTo(String),
    /// Collections go on there.
    NextLinkTo(String),
    /// The systems are there.
    MembersAt(String),
    /// New sessions are there.
    SessionAt(String),
    /// Targets of actions are there.
    ActionsAt(String),
    /// Tasks are there.
    TasksAt(String),
    /// Texts are numbers, objects are texts.
    WrongTypes,
    /// Enumerations have words of tomorrow.
    UnknownEnums,
    /// Objects in 8 MiB that would take 600 MiB when parsed.
    ManyObjects,
    /// Arrays in arrays in arrays.
    DeepJson,
    /// No HTTP at all.
    NoHttp,
}
