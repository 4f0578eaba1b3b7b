//! What people do at the pages again and again: sign in, approve, have the audit checked.

use anyhow::Result;

use crate::browser::Browser;

/// Signs in with a token at the page for signing in, which is shown.
///
/// # Errors
/// Where nobody comes in.
pub fn sign_in_with_token(browser: &Browser, token: &str) -> Result<()> {
    browser.find("#token")?.type_text(token)?;
    browser.find("#token-form button")?.click()?;
    browser.wait_for("return !location.pathname.startsWith('/login')")
}

/// Signs in by name and password at the page for signing in, which is shown.
///
/// # Errors
/// Where nobody comes in.
pub fn sign_in_by_name(browser: &Browser, name: &str, password: &str) -> Result<()> {
    browser.find("#user")?.type_text(name)?;
    browser.find("#password")?.type_text(password)?;
    browser.find("#by-name")?.click()?;
    browser.wait_for("return !location.pathname.startsWith('/login')")
}

/// Opens the first request of the page of approvals, which is shown, and approves it with this reason.
///
/// # Errors
/// Where none waits that `asked_by` asked for, or it is not done.
pub fn approve(browser: &Browser, asked_by: &str, reason: &str) -> Result<()> {
    browser.wait_text("#approvals", "Waits for a second person")?;
    browser.find("#approvals a")?.click()?;
    browser.wait_text("#decide", &format!("it is done at once, as {asked_by}"))?;
    browser.find("#reason")?.type_text(reason)?;
    browser.find("#approve")?.click()?;
    browser.wait_text("#status", "Done")?;
    browser.wait_text("#live", reason)
}

/// Has the chain checked at the page of the audit, which is shown.
///
/// # Errors
/// Where it is not intact.
pub fn verify_audit(browser: &Browser) -> Result<()> {
    browser.find("#verify")?.click()?;
    browser.wait_text("#verdict", "intact: ")
}
