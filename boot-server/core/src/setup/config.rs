//! What an installation is handed: `bf.cfg`, behind the image in one stream (NVIDIA, BlueField BSP 4.12, Customizing BlueField
//! Software Deployment: `cat <BFB> <bf.cfg> > <new BFB>`). The installer runs its function `bfb_modify_os` when the new system lies under
//! `/mnt`.

use std::fmt::Write as _;

/// Lines of eight octets before and behind what matters. On a BlueField-2 whose BMC has 24.10 the boot stream was seen to lose 29 words
/// of eight octets of what is behind the image (NVIDIA infra-controller, pxe/bfcfg-pad.sh, whose numbers these are).
const LINES: [usize; 2] = [1024, 512];
/// A word of the boot stream, in octets.
const WORD: usize = 8;

/// What a DPU is handed.
#[derive(Clone, PartialEq, Eq)]
pub struct Handed<'a> {
    /// The server's provisioning listener, as the DPU reaches it.
    pub server: &'a str,
    /// The token that it comes in with, once.
    pub token: &'a str,
}

impl std::fmt::Debug for Handed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handed").field("server", &self.server).finish_non_exhaustive()
    }
}

/// `bf.cfg`, whose length is a whole number of words. With `None` it changes nothing.
pub fn config(handed: Option<&Handed<'_>>) -> String {
    let mut text = comments(LINES[0], 0);
    if let Some(Handed { server, token }) = handed {
        let (server, token) = (quoted(server), quoted(token));
        let _ = write!(
            text,
            "bfb_modify_os()\n\
             {{\n\
             \x20   rm -f /mnt/var/lib/billet-dpu/identity\n\
             \x20   (umask 077 && printf '%s\\n' {token} > /mnt/etc/billet-dpu.token)\n\
             \x20   printf 'BILLET_DPU_OPTIONS=--server %s --token-file /etc/billet-dpu.token\\n' {server} > /mnt/etc/billet-dpu.env\n\
             \x20   chroot /mnt systemctl enable billet-dpu.service\n\
             }}\n"
        );
    }
    while !text.len().is_multiple_of(WORD) {
        text.push('\n');
    }
    text.push_str(&comments(LINES[1], 100_000));
    text
}

fn comments(lines: usize, from: usize) -> String {
    (1..=lines).fold(String::with_capacity(lines * WORD), |mut text, line| {
        let _ = writeln!(text, "#{:06}", from + line);
        text
    })
}

/// A text as one word of a shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_words_with_the_function_in_their_midst() {
        let text = config(Some(&Handed { server: "http://10.77.0.1:8080", token: "it's" }));
        assert_eq!(text.len() % WORD, 0);
        assert!(text.starts_with("#000001\n#000002\n") && text.ends_with("#100512\n"));
        let start = LINES[0] * WORD;
        let body: String =
            text[start..].lines().take_while(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
        insta::assert_snapshot!(body.trim_end());
        // Any run of whole words that is lost before the function leaves it whole.
        assert!(text[232..].contains("\nbfb_modify_os()\n{\n"));
        assert!(!config(None).contains("bfb_modify_os"));
    }

    #[test]
    fn nothing_of_it_is_printed() {
        assert!(!format!("{:?}", Handed { server: "s", token: "secret" }).contains("secret"));
    }
}
