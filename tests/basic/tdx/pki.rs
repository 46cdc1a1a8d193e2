//! A vendor of trust domains for tests, with a root of its own: certificates, revocation lists, its word on a platform, and quotes, each with
//! what may be wrong with it. Layouts: Intel's "TDX DCAP Quoting Library API" (quote of version 4) and "PCS API" (TCB info, identity of the
//! quoting enclave).

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, CustomExtension, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use ring::{
    digest,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Value, json};

/// The kind of its platforms.
pub const FMSPC: [u8; 6] = [0x10, 0xc0, 0x6f, 0, 0, 0];
/// The serial number of the platform's certificate.
const SERIAL: u64 = 77;
const DEBUG: u8 = 1;
/// SEPT_VE_DISABLE, which the library asks for.
const SAFE: [u8; 8] = [0, 0, 0, 0x10, 0, 0, 0, 0];

type Issuer = CertifiedIssuer<'static, KeyPair>;

pub struct Vendor {
    root: Issuer,
    /// Of the certificates of platforms.
    platforms: Issuer,
    /// Signs what is said of them.
    signer: (KeyPair, String),
}

/// What is said of the platform.
#[derive(Clone, Copy)]
pub struct Word {
    /// In January 2026: from that day on, for thirty days.
    pub day: u8,
    pub status: &'static str,
    /// Whether the platform's certificate is on the list.
    pub revokes: bool,
    /// The numbers of its parts.
    pub number: u32,
}

impl Default for Word {
    fn default() -> Self {
        Self { day: 1, status: "UpToDate", revokes: false, number: 1 }
    }
}

/// A machine of the vendor.
pub struct Machine {
    key: KeyPair,
    chain: String,
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn params(name: &str, is_ca: bool) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2035, 1, 1);
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    }
    params
}

/// A signature as two numbers one after the other.
fn sign(key: &KeyPair, what: &[u8]) -> Vec<u8> {
    let rng = SystemRandom::new();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.serialized_der(), &rng).unwrap();
    pair.sign(&rng, what).unwrap().as_ref().to_vec()
}

fn public(key: &KeyPair) -> Vec<u8> {
    let rng = SystemRandom::new();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.serialized_der(), &rng).unwrap();
    // Behind the byte that says that it is not compressed.
    pair.public_key().as_ref()[1..].to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// A DER value; lengths up to 65,535.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let mut out = vec![tag];
    match content.len() {
        0..=127 => out.push(length[1]),
        128..=255 => out.extend([0x81, length[1]]),
        _ => out.extend([0x82, length[0], length[1]]),
    }
    out.extend(content);
    out
}

/// A field of the platform's certificate: 1.2.840.113741.1.13.1 and these.
fn field(path: &[u8], value: &[u8]) -> Vec<u8> {
    let oid = [&[0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 1, 13, 1][..], path].concat();
    der(0x30, &[der(6, &oid), value.to_vec()].concat())
}

fn octets(bytes: &[u8]) -> Vec<u8> {
    der(4, bytes)
}

impl Vendor {
    pub fn new() -> Self {
        Self::named("a test")
    }

    pub fn named(name: &str) -> Self {
        let root = Issuer::self_signed(params(&format!("Root of {name}"), true), key()).unwrap();
        let platforms = Issuer::signed_by(params(&format!("Platforms of {name}"), true), key(), &root).unwrap();
        let signs = key();
        let signer = params("Signer of a test", false).signed_by(&signs, &root).unwrap().pem();
        Self { root, platforms, signer: (signs, signer) }
    }

    /// In DER.
    pub fn root(&self) -> Vec<u8> {
        self.root.der().to_vec()
    }

    fn list(issuer: &Issuer, word: Word, revoked: Option<u64>) -> Vec<u8> {
        let revoked = revoked.map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, word.day),
            next_update: date_time_ymd(2026, 1, word.day) + std::time::Duration::from_hours(30 * 24),
            crl_number: SerialNumber::from(u64::from(word.number)),
            issuing_distribution_point: None,
            revoked_certs: revoked.into_iter().collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(issuer).unwrap().der().to_vec()
    }

    /// The collateral of its platforms.
    pub fn word(&self, word: Word) -> Value {
        // 30 days later, in another month for all but the first of January.
        let dates = [
            format!("2026-01-{:02}T00:00:00Z", word.day),
            if word.day == 1 {
                "2026-01-31T00:00:00Z".into()
            } else {
                format!("2026-02-{:02}T00:00:00Z", word.day - 1)
            },
        ];
        let components = |svn: u8| vec![json!({ "svn": svn }); 16];
        let tcb = json!({
            "id": "TDX", "version": 3, "issueDate": dates[0], "nextUpdate": dates[1], "fmspc": hex(&FMSPC), "pceId": "0000", "tcbType": 0,
            "tcbEvaluationDataNumber": word.number,
            "tdxModule": { "mrsigner": "00".repeat(48), "attributes": "00".repeat(8), "attributesMask": "ff".repeat(8) },
            "tdxModuleIdentities": [],
            "tcbLevels": [{
                "tcb": { "sgxtcbcomponents": components(0), "tdxtcbcomponents": components(0), "pcesvn": 0 },
                "tcbDate": "2025-01-01T00:00:00Z", "tcbStatus": word.status,
            }],
        })
        .to_string();
        let quoting = json!({
            "id": "TD_QE", "version": 2, "issueDate": dates[0], "nextUpdate": dates[1], "tcbEvaluationDataNumber": word.number,
            "miscselect": "00000000", "miscselectMask": "ffffffff", "attributes": "00".repeat(16), "attributesMask": "ff".repeat(16),
            "mrsigner": hex(&[9; 32]), "isvprodid": 2,
            "tcbLevels": [{ "tcb": { "isvsvn": 1 }, "tcbDate": "2025-01-01T00:00:00Z", "tcbStatus": "UpToDate" }],
        })
        .to_string();
        let (key, signer) = &self.signer;
        let chain = |pem: String| pem + &self.root.pem();
        json!({
            "pck_crl_issuer_chain": chain(self.platforms.pem()),
            "root_ca_crl": hex(&Self::list(&self.root, word, None)),
            "pck_crl": hex(&Self::list(&self.platforms, word, word.revokes.then_some(SERIAL))),
            "tcb_info_issuer_chain": chain(signer.clone()),
            "tcb_info_signature": hex(&sign(key, tcb.as_bytes())),
            "tcb_info": tcb,
            "qe_identity_issuer_chain": chain(signer.clone()),
            "qe_identity_signature": hex(&sign(key, quoting.as_bytes())),
            "qe_identity": quoting,
        })
    }

    pub fn machine(&self) -> Machine {
        let mut params = params("Platform of a test", false);
        params.serial_number = Some(SerialNumber::from(SERIAL));
        let tcb = [field(&[2, 17], &der(2, &[0])), field(&[2, 18], &octets(&[0; 16]))].concat();
        let facts = [
            field(&[1], &octets(&[5; 16])),
            field(&[2], &der(0x30, &tcb)),
            field(&[3], &octets(&[0; 2])),
            field(&[4], &octets(&FMSPC)),
            field(&[5], &der(10, &[0])),
        ];
        let facts = der(0x30, &facts.concat());
        params.custom_extensions.push(CustomExtension::from_oid_content(&[1, 2, 840, 113_741, 1, 13, 1], facts));
        let key = key();
        let leaf = params.signed_by(&key, &self.platforms).unwrap();
        Machine { chain: [leaf.pem(), self.platforms.pem(), self.root.pem()].concat(), key }
    }
}

/// What runs in a trust domain.
#[derive(Clone, Copy)]
pub struct Domain {
    pub debug: bool,
    pub mrtd: [u8; 48],
}

impl Machine {
    /// A quote of version 4.
    pub fn quote(&self, domain: Domain, data: &[u8; 64]) -> Vec<u8> {
        let vendor = [0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07];
        let header = [&[4, 0, 2, 0, 0x81, 0, 0, 0, 0, 0, 0, 0][..], &vendor, &[0; 20]].concat();
        let mut attributes = SAFE;
        attributes[0] = if domain.debug { DEBUG } else { 0 };
        let zero = [0; 48];
        let report: [&[u8]; 15] = [
            &[0; 16],
            &zero,
            &zero,
            &[0; 8],
            &attributes,
            &[0; 8],
            &domain.mrtd,
            &zero,
            &zero,
            &zero,
            &zero,
            &zero,
            &zero,
            &zero,
            data,
        ];
        let signed = [header, report.concat()].concat();
        assert_eq!(signed.len(), 48 + 584);

        let attests = key();
        let own = [3; 32];
        let bound = digest::digest(&digest::SHA256, &[public(&attests), own.to_vec()].concat());
        let (product, version) = (2u16.to_le_bytes(), 1u16.to_le_bytes());
        let quoting: [&[u8]; 12] = [
            &[0; 16],
            &[0; 4],
            &[0; 28],
            &[0; 16],
            &[8; 32],
            &[0; 32],
            &[9; 32],
            &[0; 96],
            &product,
            &version,
            &[0; 60],
            bound.as_ref(),
        ];
        let quoting = [quoting.concat(), vec![0; 32]].concat();
        assert_eq!(quoting.len(), 384);
        let length = |bytes: usize| u32::try_from(bytes).unwrap().to_le_bytes();
        let certified = [
            &quoting[..],
            &sign(&self.key, &quoting),
            &[32, 0],
            &own,
            &[5, 0],
            &length(self.chain.len()),
            self.chain.as_bytes(),
        ]
        .concat();
        let auth =
            [&sign(&attests, &signed)[..], &public(&attests), &[6, 0], &length(certified.len()), &certified].concat();
        [signed, length(auth.len()).to_vec(), auth].concat()
    }
}
