//! The account that the driver logs in with: another password (sections 22.26 to 22.30).

use super::limits::{PASSWORD_MAX, USER_MAX, USERS_MAX};
use super::link::{Ask, Link, data, malformed};
use super::message::completion;
use crate::BmcError;

const GET_USER_ACCESS: u8 = 0x44;
const GET_USER_NAME: u8 = 0x46;
const SET_USER_PASSWORD: u8 = 0x47;
const THIS_CHANNEL: u8 = 0x0e;
/// Octets of a password in the form that IPMI 1.5 knew too.
const SHORT_PASSWORD: usize = 16;
/// In the user id: the password has 20 octets.
const LONG: u8 = 0x80;
const SET_PASSWORD: u8 = 2;
const WHAT: &str = "changing the password";

/// The octets of a password.
///
/// # Errors
/// Where it is longer than 20 octets, or has a zero, at which controllers end it.
pub fn password(text: &str) -> Result<Vec<u8>, BmcError> {
    let why = if text.len() > PASSWORD_MAX {
        format!(
            "it has {} octets, IPMI 2.0 takes at most {PASSWORD_MAX}; give the account a shorter one",
            text.len()
        )
    } else if text.contains('\0') {
        "it has a zero octet, at which a controller would end it".into()
    } else {
        return Ok(text.as_bytes().to_vec());
    };
    Err(BmcError::Refused { what: "the password".into(), why })
}

/// The octets of a user name.
///
/// # Errors
/// Where it is longer than 16 octets.
pub fn user(text: &str) -> Result<Vec<u8>, BmcError> {
    if text.len() > USER_MAX {
        let why = format!("it has {} octets, IPMI takes at most {USER_MAX}", text.len());
        return Err(BmcError::Refused { what: "the user name".into(), why });
    }
    Ok(text.as_bytes().to_vec())
}

pub(super) async fn change_password(link: &mut Link, name: &[u8], new: Vec<u8>) -> Result<(), BmcError> {
    let id = find(link, name).await?;
    set(link, id, &new).await?;
    // Some controllers take twenty octets and keep sixteen. The session that is open can still put that right.
    if let Err(BmcError::Login) = link.try_login(new.clone()).await {
        let old = link.password().to_vec();
        set(link, id, &old).await?;
        let why = "the controller took it but does not let it in, and has the old one again; give one of at most 16 octets";
        return Err(BmcError::Refused { what: WHAT.into(), why: why.into() });
    }
    link.set_password(new).await;
    Ok(())
}

async fn set(link: &mut Link, id: u8, password: &[u8]) -> Result<(), BmcError> {
    let mut octets = password.to_vec();
    octets.resize(PASSWORD_MAX, 0);
    let long = [&[LONG | id, SET_PASSWORD][..], &octets].concat();
    match link.change(&Ask::app(WHAT, SET_USER_PASSWORD, &long)).await {
        // A controller that knows the short form only.
        Err(BmcError::Refused { .. }) if password.len() <= SHORT_PASSWORD => {
            octets.truncate(SHORT_PASSWORD);
            let short = [&[id, SET_PASSWORD][..], &octets].concat();
            link.change(&Ask::app(WHAT, SET_USER_PASSWORD, &short)).await.map(drop)
        }
        outcome => outcome.map(drop),
    }
}

/// The number of the user with this name.
async fn find(link: &mut Link, name: &[u8]) -> Result<u8, BmcError> {
    let access = link.read(&Ask::app("the users", GET_USER_ACCESS, &[THIS_CHANNEL, 1])).await?;
    let count = access.first().ok_or_else(|| malformed("the users", "no data"))? & 0x3f;
    for id in 1..=count.min(USERS_MAX) {
        let ask = Ask::app("a user's name", GET_USER_NAME, &[id]);
        let response = link.answer(&ask).await?;
        if matches!(response.completion, completion::NOT_PRESENT | completion::INVALID_FIELD) {
            continue;
        }
        let found = data(&ask, response)?;
        let found = found.split(|o| *o == 0).next().unwrap_or_default();
        if found == name {
            return Ok(id);
        }
    }
    Err(BmcError::Refused { what: WHAT.into(), why: "no user has the name that was logged in with".into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_that_does_not_fit_is_refused_with_words() {
        assert_eq!(password("12345678901234567890").unwrap().len(), 20);
        let error = password("123456789012345678901").unwrap_err().to_string();
        assert!(error.contains("21 octets") && error.contains("at most 20"), "{error}");
        assert!(password("a\0b").is_err());
        assert!(user("seventeen letters").is_err());
    }
}
