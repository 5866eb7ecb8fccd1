//! Digest (RFC 7616, RFC 2617) and Basic (RFC 7617) authentication of requests.

use super::url::Credentials;
use http_auth::{PasswordClient, PasswordParams};

/// What to do about a 401.
#[derive(Debug, PartialEq, Eq)]
pub enum Challenged {
    /// Send the request again: it will be signed for the new challenge.
    Retry,
    /// Give up, for this reason.
    GiveUp(String),
}

/// Signs the requests of one connection.
#[derive(Default)]
pub struct Auth {
    credentials: Option<Credentials>,
    client: Option<PasswordClient>,
    /// The camera has taken our signature once: a later 401 means an old nonce, not a wrong password.
    is_proven: bool,
}

impl Auth {
    /// Without credentials nothing is signed.
    pub fn new(credentials: Option<Credentials>) -> Auth {
        Auth { credentials, ..Auth::default() }
    }

    /// The `Authorization` header's value, if the camera has asked for one.
    pub fn authorization(&mut self, method: &str, uri: &str) -> Option<String> {
        let (credentials, client) = (self.credentials.as_ref()?, self.client.as_mut()?);
        let mut params = PasswordParams {
            username: &credentials.user,
            password: &credentials.password,
            uri,
            method,
            body: None,
        };
        // `auth` is understood everywhere; `auth-int` only when nothing else is offered.
        client.respond(&params).ok().or_else(|| {
            params.body = Some(&[]);
            client.respond(&params).ok()
        })
    }

    /// Says that a signed request was accepted.
    pub fn accepted(&mut self) {
        self.is_proven |= self.client.is_some();
    }

    /// Takes a 401's `WWW-Authenticate` (several joined by commas; Digest goes first). `attempts` counts the 401s to
    /// this request before. The password is tried once only, because cameras lock users out.
    pub fn challenged(&mut self, www_authenticate: Option<&str>, attempts: usize) -> Challenged {
        if self.credentials.is_none() {
            return Challenged::GiveUp(
                "the camera wants a user name and password: rtsp://user:password@host/…".to_owned(),
            );
        }
        let Some(challenge) = www_authenticate else {
            return Challenged::GiveUp("and no WWW-Authenticate header that says how to log in".to_owned());
        };
        let client = match PasswordClient::try_from(challenge) {
            Ok(client) => client,
            Err(_) => {
                let scheme: String =
                    challenge.chars().take_while(char::is_ascii_alphanumeric).take(20).collect();
                return Challenged::GiveUp(format!(
                    "the camera's way to log in ({scheme}) is not understood"
                ));
            }
        };
        let is_first = self.client.is_none();
        let is_stale = matches!(&client, PasswordClient::Digest(digest) if digest.stale());
        self.client = Some(client);
        if is_first || (attempts == 0 && self.is_proven) || (attempts < 2 && is_stale) {
            Challenged::Retry
        } else {
            Challenged::GiveUp("user name or password is wrong".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "Digest realm=\"cam\", nonce=\"one\"";

    fn auth() -> Auth {
        Auth::new(Some(Credentials { user: "admin".into(), password: "비밀".into() }))
    }

    #[test]
    fn nothing_is_signed_before_the_camera_asks() {
        assert_eq!(auth().authorization("DESCRIBE", "rtsp://h/"), None);
    }

    #[test]
    fn digest_goes_before_basic_in_whatever_order() {
        for challenge in [format!("Basic realm=\"x\", {DIGEST}"), format!("{DIGEST}, Basic realm=\"x\"")] {
            let mut auth = auth();
            assert_eq!(auth.challenged(Some(&challenge), 0), Challenged::Retry);
            let value = auth.authorization("DESCRIBE", "rtsp://h/").expect("signed");
            assert!(value.starts_with("Digest ") && value.contains("uri=\"rtsp://h/\""), "{value}");
        }
    }

    #[test]
    fn digests_are_those_of_the_rfcs() {
        // MD5 without qop, RFC 2617 §3.2.2.1: MD5(MD5(user:realm:password):nonce:MD5(method:uri)), by md5sum.
        let mut auth = Auth::new(Some(Credentials { user: "admin".into(), password: "secret".into() }));
        auth.challenged(Some(DIGEST), 0);
        let value = auth.authorization("DESCRIBE", "rtsp://h/").expect("signed");
        assert!(value.contains("response=\"c91dde3b0fd454cb5c6d92e373df6a53\""), "{value}");
        auth.challenged(Some("Digest realm=\"cam\", nonce=\"two\", algorithm=SHA-256, qop=\"auth\""), 0);
        let value = auth.authorization("DESCRIBE", "rtsp://h/").expect("signed");
        assert!(
            value.contains("SHA-256") && value.contains("nc=00000001") && value.contains("qop=auth"),
            "{value}"
        );
    }

    #[test]
    fn basic_is_used_when_it_is_all_there_is() {
        let mut auth = auth();
        assert_eq!(auth.challenged(Some("Basic realm=\"x\""), 0), Challenged::Retry);
        assert_eq!(auth.authorization("PLAY", "u").as_deref(), Some("Basic YWRtaW4667mE67CA"));
    }

    #[test]
    fn a_wrong_password_is_tried_once() {
        let mut auth = auth();
        assert_eq!(auth.challenged(Some(DIGEST), 0), Challenged::Retry);
        let again = auth.challenged(Some("Digest realm=\"cam\", nonce=\"two\""), 1);
        assert_eq!(again, Challenged::GiveUp("user name or password is wrong".into()));
    }

    #[test]
    fn a_stale_nonce_is_replaced_but_not_for_ever() {
        let stale = "Digest realm=\"cam\", nonce=\"two\", stale=TRUE";
        let mut auth = auth();
        assert_eq!(auth.challenged(Some(DIGEST), 0), Challenged::Retry);
        assert_eq!(auth.challenged(Some(stale), 1), Challenged::Retry);
        assert!(matches!(auth.challenged(Some(stale), 2), Challenged::GiveUp(_)));
        auth.accepted();
        assert_eq!(auth.challenged(Some(DIGEST), 0), Challenged::Retry, "a proven password gets a new nonce");
        assert!(matches!(auth.challenged(Some(DIGEST), 1), Challenged::GiveUp(_)));
    }

    #[test]
    fn challenges_that_can_not_be_met_say_why() {
        let reason = |r: Challenged| match r {
            Challenged::GiveUp(reason) => reason,
            Challenged::Retry => panic!("must give up"),
        };
        assert!(reason(Auth::new(None).challenged(Some(DIGEST), 0)).contains("rtsp://user:password@host"));
        assert!(reason(auth().challenged(None, 0)).contains("no WWW-Authenticate"));
        assert!(reason(auth().challenged(Some("Negotiate abc"), 0)).contains("Negotiate"));
    }
}
