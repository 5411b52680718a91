//! Key material in texts that people read: whatever looks like it is hidden, wherever it was put by mistake.

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};

/// In place of a secret.
pub const HIDDEN: &str = "***";

/// The characters of a seed's base32; shorter runs are no seed, nor the beginning of one that would be of use.
const SEED_MIN: usize = 40;
/// The shortest JSON web token has a header, a body and a signature.
const TOKEN_MIN: usize = 40;

/// Addresses without their users' secrets.
pub fn redact(url: &str) -> String {
    let hide = |one: &str| match (one.find("://"), one.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}://{HIDDEN}{}", &one[..scheme], &one[at..]),
        _ => one.to_owned(),
    };
    url.split(',').map(hide).collect::<Vec<_>>().join(",")
}

/// Whether two secrets are the same, in a time that tells nothing of where they differ.
pub fn same(a: &str, b: &str) -> bool {
    Sha256::digest(a) == Sha256::digest(b)
}

/// Whether a text holds a seed, a token or a private key.
pub fn is_in(text: &str) -> bool {
    hide(text) != text
}

/// A text without seeds of nkeys, JSON web tokens, what stands between `-----BEGIN …` and `-----END …` of keys and
/// credentials, and the users of addresses.
pub fn hide(text: &str) -> String {
    // Most texts hold none of it.
    let text = blocks(text);
    let text = addresses(&text);
    let is_seed = |word: &str| word.len() >= SEED_MIN && word.starts_with('S');
    let text = words(&text, |c| c.is_ascii_uppercase() || ('2'..='7').contains(&c), is_seed);
    let is_token = |word: &str| word.len() >= TOKEN_MIN && word.starts_with("eyJ");
    words(&text, |c| c.is_ascii_alphanumeric() || "-_.".contains(c), is_token)
}

/// The same for a line of a log, of which hardly any holds what could be secret.
pub fn hide_in_line(line: &[u8]) -> Cow<'_, [u8]> {
    let has = |sign: &[u8]| line.windows(sign.len()).any(|at| at == sign);
    let seed = || {
        let of_seed = |byte: &u8| byte.is_ascii_uppercase() || (b'2'..=b'7').contains(byte);
        line.split(|byte| !of_seed(byte)).any(|run| run.len() >= SEED_MIN)
    };
    if !(has(b"://") || has(b"-----BEGIN ") || has(b"eyJ") || seed()) {
        return Cow::Borrowed(line);
    }
    match std::str::from_utf8(line) {
        Ok(text) => Cow::Owned(hide(text).into_bytes()),
        Err(_) => Cow::Borrowed(line),
    }
}

/// Hides the runs of such characters that are secret.
fn words(text: &str, of: impl Fn(char) -> bool, secret: impl Fn(&str) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(from) = rest.find(&of) {
        out.push_str(&rest[..from]);
        rest = &rest[from..];
        let end = rest.find(|c| !of(c)).unwrap_or(rest.len());
        out.push_str(if secret(&rest[..end]) { HIDDEN } else { &rest[..end] });
        rest = &rest[end..];
    }
    out + rest
}

/// Hides what stands in armoured blocks, but for certificates, which are public.
fn blocks(text: &str) -> String {
    const BEGIN: &str = "-----BEGIN ";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        let inside = &rest[at + BEGIN.len()..];
        let title = inside.find("-----").map_or(inside.len(), |end| end + "-----".len());
        let (title, body) = inside.split_at(title);
        out.push_str(&rest[..at + BEGIN.len()]);
        out.push_str(title);
        rest = body;
        if title.contains("CERTIFICATE") {
            continue;
        }
        out.push_str(HIDDEN);
        // What has no end is hidden to the end.
        rest = body.find("-----END").map_or("", |end| &body[end..]);
    }
    out + rest
}

/// Hides the users of addresses.
fn addresses(text: &str) -> String {
    let mut parts = text.split("://");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str("://");
        // A password may hold anything but a space, quotes as well.
        let end = part.find(char::is_whitespace).unwrap_or(part.len());
        match part[..end].rfind('@') {
            // An example for a person.
            Some(user) if out.ends_with("postgres://") && ["USER", "jetmesh"].contains(&&part[..user]) => {
                out.push_str(part);
            }
            Some(user) => {
                out.push_str(HIDDEN);
                out.push_str(&part[user..]);
            }
            None => out.push_str(part),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A seed that was made for tests and opens nothing.
    const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";

    #[test]
    fn what_looks_like_key_material_is_hidden_and_nothing_else() {
        let hidden = [
            (format!("there is no file {SEED}"), "there is no file ***"),
            (format!("seed={SEED}, and"), "seed=***, and"),
            (
                "token eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.eyJqdGkiOiJYIn0.abc_-d".to_owned(),
                "token ***",
            ),
            (
                "x -----BEGIN PRIVATE KEY-----\nMC4CAQ\n-----END PRIVATE KEY----- y".to_owned(),
                "x -----BEGIN PRIVATE KEY-----***-----END PRIVATE KEY----- y",
            ),
            (
                "1 | -----BEGIN RSA PRIVATE KEY-----\nMC4".to_owned(),
                "1 | -----BEGIN RSA PRIVATE KEY-----***",
            ),
            (
                "at nats://u:p@ss@a:1,tls://t0k@b:2 and nats://c \"nats://x:y@d\" end".to_owned(),
                "at nats://***@a:1,tls://***@b:2 and nats://c \"nats://***@d\" end",
            ),
        ];
        for (text, wanted) in hidden {
            assert_eq!(hide(&text), wanted);
            assert!(is_in(&text), "{text}");
            assert_eq!(&*hide_in_line(text.as_bytes()), wanted.as_bytes());
        }
        for plain in [
            "stream ORDERS does not capture `orders.>`; a@b",
            "module 31c1afd9d381 UDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VYAAAAAAAAAA",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
            "nats://host:4222, tls://[::1]:4223; see https://docs.nats.io/x",
            "",
        ] {
            assert_eq!(hide(plain), plain);
        }
    }
}
