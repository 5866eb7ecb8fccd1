//! The server's side of logging in: Digest (RFC 7616, RFC 2617) and Basic (RFC 7617).

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use md5::Md5;
use sha2::Sha256;
use sha2::digest::Digest;

const REALM: &str = "streamgate";
/// Most parameters that are read of one header.
const MAX_PARAMETERS: usize = 32;

/// What an `Authorization` header is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Name and password are right.
    Granted,
    /// They are right, for a nonce that is not ours: ask again with [`Guard::challenges`] of `stale`.
    Stale,
    /// There is no header.
    Missing,
    /// They are wrong, or the header can't be read.
    Denied,
}

/// Guards one connection with one name and password. Its nonce is of no use on any other.
#[derive(Clone)]
pub struct Guard {
    username: String,
    password: String,
    nonce: String,
}

impl Guard {
    /// A guard with a new nonce.
    pub fn new(username: &str, password: &str) -> Guard {
        let nonce = format!("{:032x}", rand::random::<u128>());
        Guard { username: username.to_owned(), password: password.to_owned(), nonce }
    }

    /// The values of the `WWW-Authenticate` headers, in this order: most players take the last Digest that they know,
    /// and many know MD5 without `qop` only.
    pub fn challenges(&self, stale: bool) -> [String; 3] {
        let (nonce, stale) = (&self.nonce, if stale { ", stale=TRUE" } else { "" });
        [
            format!("Digest realm=\"{REALM}\", nonce=\"{nonce}\"{stale}, algorithm=SHA-256, qop=\"auth\""),
            format!("Digest realm=\"{REALM}\", nonce=\"{nonce}\"{stale}"),
            format!("Basic realm=\"{REALM}\""),
        ]
    }

    /// Checks the `Authorization` header of a request with this method.
    pub fn check(&self, method: &str, authorization: Option<&str>) -> Verdict {
        let Some(authorization) = authorization else { return Verdict::Missing };
        let (scheme, rest) = authorization.trim().split_once(' ').unwrap_or((authorization, ""));
        if scheme.eq_ignore_ascii_case("Basic") {
            let expected = format!("{}:{}", self.username, self.password);
            let given = BASE64_STANDARD.decode(rest.trim()).unwrap_or_default();
            return if same(&given, expected.as_bytes()) { Verdict::Granted } else { Verdict::Denied };
        }
        if !scheme.eq_ignore_ascii_case("Digest") {
            return Verdict::Denied;
        }
        self.check_digest(method, rest).unwrap_or(Verdict::Denied)
    }

    /// `None` if a parameter is missing or not as it must be.
    fn check_digest(&self, method: &str, parameters: &str) -> Option<Verdict> {
        let parameters = read_parameters(parameters);
        let get = |name: &str| {
            let found = parameters.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.as_str())
        };
        let hash = match get("algorithm").unwrap_or_default().to_ascii_uppercase().as_str() {
            "" | "MD5" => hash::<Md5>,
            "SHA-256" => hash::<Sha256>,
            _ => return None,
        };
        let (nonce, uri, response) = (get("nonce")?, get("uri")?, get("response")?);
        if get("username")? != self.username || get("realm")? != REALM {
            return Some(Verdict::Denied);
        }
        let user = hash(&format!("{}:{REALM}:{}", self.username, self.password));
        let request = hash(&format!("{method}:{uri}"));
        let expected = match get("qop") {
            None | Some("") => hash(&format!("{user}:{nonce}:{request}")),
            Some("auth") => {
                let (count, client) = (get("nc")?, get("cnonce")?);
                hash(&format!("{user}:{nonce}:{count}:{client}:auth:{request}"))
            }
            Some(_) => return None,
        };
        Some(match same(expected.as_bytes(), response.to_ascii_lowercase().as_bytes()) {
            true if nonce == self.nonce => Verdict::Granted,
            true => Verdict::Stale,
            false => Verdict::Denied,
        })
    }
}

/// Reads `name="value", name=value …`. Not by `http-auth`: it takes ASCII only, and players send names as they are.
fn read_parameters(text: &str) -> Vec<(String, String)> {
    let (mut parameters, mut rest) = (Vec::new(), text);
    while let (Some((name, after)), true) = (rest.split_once('='), parameters.len() < MAX_PARAMETERS) {
        let mut value = String::new();
        rest = match after.trim_start().strip_prefix('"') {
            Some(quoted) => {
                let mut chars = quoted.chars();
                while let Some(c) = chars.next() {
                    match c {
                        '"' => break,
                        '\\' => value.extend(chars.next()),
                        c => value.push(c),
                    }
                }
                chars.as_str().split_once(',').map_or("", |(_, rest)| rest)
            }
            None => {
                let (plain, rest) = after.split_once(',').unwrap_or((after, ""));
                value.push_str(plain.trim());
                rest
            }
        };
        parameters.push((name.trim().to_owned(), value));
    }
    parameters
}

fn hash<D: Digest>(text: &str) -> String {
    D::digest(text).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

/// Compares without telling by the time where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_auth::{PasswordClient, PasswordParams};

    fn guard() -> Guard {
        Guard::new("admin", "비밀\"")
    }

    fn answer(challenge: &str, password: &str) -> String {
        let mut client = PasswordClient::try_from(challenge).expect("a challenge");
        let params =
            PasswordParams { username: "admin", password, uri: "rtsp://h/x", method: "DESCRIBE", body: None };
        client.respond(&params).expect("an answer")
    }

    #[test]
    fn every_challenge_can_be_met_with_the_password_only() {
        let guard = guard();
        for challenge in guard.challenges(false) {
            let right = answer(&challenge, "비밀\"");
            assert_eq!(guard.check("DESCRIBE", Some(&right)), Verdict::Granted, "{right}");
            let wrong = answer(&challenge, "비밀");
            assert_eq!(guard.check("DESCRIBE", Some(&wrong)), Verdict::Denied, "{wrong}");
        }
        let digest = answer(&guard.challenges(false)[1], "비밀\"");
        assert_eq!(guard.check("PLAY", Some(&digest)), Verdict::Denied, "another method");
        let other = Guard::new("other", "비밀\"");
        assert_eq!(other.check("DESCRIBE", Some(&digest)), Verdict::Denied, "another user");
    }

    #[test]
    fn a_nonce_of_another_connection_is_stale() {
        let old = answer(&guard().challenges(false)[0], "비밀\"");
        assert_eq!(guard().check("DESCRIBE", Some(&old)), Verdict::Stale);
        assert!(guard().challenges(true)[1].contains("stale=TRUE"));
    }

    #[test]
    fn what_players_write_is_read() {
        let read = |text: &str| {
            read_parameters(text).into_iter().map(|(n, v)| format!("{n}:{v}")).collect::<Vec<_>>()
        };
        assert_eq!(
            read(r#"uri="rtsp://h/금곡,IC", nc=00000001 ,a="b\"c""#),
            ["uri:rtsp://h/금곡,IC", "nc:00000001", "a:b\"c"]
        );
        assert_eq!(read(r#"a="never ends, b=c"#), ["a:never ends, b=c"]);
        assert_eq!(read("nothing"), Vec::<String>::new());
        assert_eq!(read(&"a=b,".repeat(1000)).len(), MAX_PARAMETERS);
    }

    #[test]
    fn what_can_not_be_read_is_denied() {
        let guard = guard();
        assert_eq!(guard.check("PLAY", None), Verdict::Missing);
        for odd in [
            "",
            "Basic",
            "Basic ====",
            "Digest",
            "Digest a",
            "Digest username=\"admin\"",
            "Digest username=\"admin\", realm=\"streamgate\", nonce=\"x\", uri=\"y\", response=\"z\", algorithm=MD4",
            "Bearer abc",
        ] {
            assert_eq!(guard.check("PLAY", Some(odd)), Verdict::Denied, "{odd}");
        }
    }
}
