//! HMAC-SHA-256 (RFC 2104), for signatures and tokens.
//!
//! Knows no format of a signature. A key may have any length.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The code of the concatenated `parts` under `key`.
pub fn code(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    // Keys of every length are valid, so that no code is ever missing.
    authenticated(key, parts).map_or_else(Vec::new, |mac| mac.finalize().into_bytes().to_vec())
}

/// Returns true if `found` is the code of the concatenated `parts` under `key`. Takes the same time wherever they differ.
pub fn is_code(found: &[u8], key: &[u8], parts: &[&[u8]]) -> bool {
    authenticated(key, parts).is_some_and(|mac| mac.verify_slice(found).is_ok())
}

fn authenticated(key: &[u8], parts: &[&[u8]]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    parts.iter().for_each(|part| mac.update(part));
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_standard() {
        // Test cases 2 and 6 of RFC 4231: a key shorter and one longer than a block.
        let found = code(b"Jefe", &[b"what do ya want ", b"for nothing?"]);
        assert_eq!(hex::encode(&found), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        let long = code(&[0xaa; 131], &[b"Test Using Larger Than Block-Size Key - Hash Key First"]);
        assert_eq!(hex::encode(long), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
        assert!(is_code(&found, b"Jefe", &[b"what do ya want for nothing?"]));
        assert!(!is_code(&found, b"jefe", &[b"what do ya want for nothing?"]));
        assert!(!is_code(&found[1..], b"Jefe", &[b"what do ya want for nothing?"]));
    }
}
