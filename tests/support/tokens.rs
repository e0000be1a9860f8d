//! A token service for a real registry in token mode: checks a password and signs short-lived JWTs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};

use super::http1::{Request, Response, Server};

pub const SERVICE: &str = "wharf-test-registry";
pub const ISSUER: &str = "wharf-test-issuer";

/// A request for a token.
#[derive(Clone, Debug)]
pub struct Asked {
    pub scopes: Vec<String>,
    /// The user of the Basic credentials, if any were sent.
    pub account: Option<String>,
    pub granted: bool,
}

struct Signer {
    key: EcdsaKeyPair,
    /// The certificate in DER, base64: the registry checks it against its root bundle.
    certificate: String,
}

impl Signer {
    fn sign(&self, access: &Value, seconds: u64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs();
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [self.certificate]});
        let claims = json!({
            "iss": ISSUER, "aud": SERVICE, "sub": "", "jti": uuid::Uuid::new_v4(),
            "nbf": now - 5, "iat": now, "exp": now + seconds, "access": access,
        });
        let text = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let signature = self.key.sign(&SystemRandom::new(), text.as_bytes()).expect("a signature");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// The service. The registry it is for trusts [`certificate`](Self::certificate).
pub struct TokenServer {
    signer: Arc<Signer>,
    certificate: PathBuf,
    server: Server,
    asked: Arc<Mutex<Vec<Asked>>>,
    life: Arc<AtomicU64>,
}

impl TokenServer {
    /// Makes a key below `folder` with the `openssl` command and starts to answer.
    pub async fn start(folder: &Path, user: &str, password: &str) -> Self {
        let (key, certificate) = (folder.join("token.key"), folder.join("token.crt"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-sha256", "-days", "2", "-subj", "/CN=wharf-test-issuer", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .expect("openssl runs");
        assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &from_pem(&key), &SystemRandom::new())
                .expect("a P-256 key");
        let signer = Arc::new(Signer { key, certificate: STANDARD.encode(from_pem(&certificate)) });

        let asked = Arc::new(Mutex::new(Vec::new()));
        let life = Arc::new(AtomicU64::new(60));
        let expected = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        let (user, log, seconds, sign) =
            (user.to_owned(), Arc::clone(&asked), Arc::clone(&life), Arc::clone(&signer));
        let server = Server::start(move |request: Request| {
            let seconds = seconds.load(Ordering::SeqCst);
            let answer = answer(&request, &user, &expected, &sign, seconds, &log);
            async move { answer }
        })
        .await;
        Self { signer, certificate, server, asked, life }
    }

    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    pub fn realm(&self) -> String {
        format!("{}/token", self.server.url())
    }

    /// Sets `expires_in` and the life of tokens from now on. (The registry itself allows a minute more.)
    pub fn live_for(&self, seconds: u64) {
        self.life.store(seconds, Ordering::SeqCst);
    }

    /// Returns every request for a token so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }

    /// Makes a token for the tests' own uploads.
    pub fn mint(&self, repository: &str, actions: &[&str]) -> String {
        let access = json!([{"type": "repository", "name": repository, "actions": actions}]);
        self.signer.sign(&access, 300)
    }
}

fn answer(
    request: &Request,
    user: &str,
    expected: &str,
    signer: &Signer,
    seconds: u64,
    log: &Mutex<Vec<Asked>>,
) -> Response {
    let query = request.query();
    // Several scopes come as several parameters, or in one with spaces between them.
    let scopes: Vec<String> = query
        .iter()
        .filter(|(name, _)| name == "scope")
        .flat_map(|(_, value)| value.split(' ').map(str::to_owned))
        .collect();
    let authorization = request.header("authorization");
    let known = authorization == Some(expected);
    let service = query.iter().any(|(name, value)| name == "service" && value == SERVICE);
    let granted = service && (known || authorization.is_none());
    let account = known.then(|| user.to_owned());
    log.lock().push(Asked { scopes: scopes.clone(), account, granted });
    if !granted {
        return Response::json(
            401,
            &json!({"errors": [{"code": "UNAUTHORIZED", "message": "bad password"}]}),
        );
    }
    // An anonymous client gets a token that opens nothing, as from public services.
    let access: Vec<Value> =
        if known { scopes.iter().filter_map(|scope| grant(scope)).collect() } else { vec![] };
    let token = signer.sign(&access.into(), seconds);
    Response::json(200, &json!({"token": token, "expires_in": seconds}))
}

fn grant(scope: &str) -> Option<Value> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    Some(json!({"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}))
}

fn from_pem(path: &Path) -> Vec<u8> {
    let text = std::fs::read_to_string(path).expect("a PEM file");
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(body).expect("base64 between the PEM lines")
}
