//! `ssh://[login@]host[:port]/path`, as a person writes it.
//!
//! Nothing is looked up, added or guessed: login, host and port go to ssh as they are, or not at
//! all, so that aliases, jump hosts and keys are what the user's own configuration says.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use podkeep_format::wire::PATH_BYTES_MAX;

const SCHEME: &[u8] = b"ssh://";
/// Of login and host: longer ones are no names.
const WORD_BYTES_MAX: usize = 255;

/// A place on a host that ssh reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub login: Option<String>,
    /// A name, an alias of the ssh configuration, or an address without brackets.
    pub host: String,
    pub port: Option<u16>,
    /// Absolute, or below the login's home where it was written as `/~/...`. Any bytes.
    pub path: Vec<u8>,
}

impl Address {
    /// Whether `text` is meant as such an address.
    pub fn is_one(text: &OsStr) -> bool {
        text.as_bytes().starts_with(SCHEME)
    }

    /// The error completes "... is no place that podkeep reaches: ".
    pub fn parse(text: &OsStr) -> Result<Self, &'static str> {
        let Some(rest) = text.as_bytes().strip_prefix(SCHEME) else {
            return Err("it does not begin with ssh://");
        };
        let Some(slash) = rest.iter().position(|b| *b == b'/') else {
            return Err("it names no path: ssh://HOST/PATH");
        };
        let (authority, path) = rest.split_at(slash);
        let authority =
            std::str::from_utf8(authority).map_err(|_| "the host's name is not UTF-8")?;
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, authority),
        };
        let (host, port) = if let Some(literal) = place.strip_prefix('[') {
            let Some((host, port)) = literal.split_once(']') else {
                return Err("the bracket around the address is not closed");
            };
            match port.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if port.is_empty() => (host, None),
                None => return Err("behind the bracket comes a colon and a port, or the path"),
            }
        } else {
            match place.split_once(':') {
                Some((_, port)) if port.contains(':') => {
                    return Err("an IPv6 address stands in brackets: ssh://[::1]/PATH");
                }
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            }
        };
        let port = match port {
            Some(digits) => match digits.parse() {
                Ok(port) if port > 0 && digits.bytes().all(|b| b.is_ascii_digit()) => Some(port),
                _ => return Err("the port is not a number from 1 to 65535"),
            },
            None => None,
        };
        if !is_word(host) {
            return Err("the host's name is empty or has characters that no host's name has");
        }
        if !login.is_none_or(is_word) {
            return Err("the login is empty or has characters that no login has");
        }
        let path = path.strip_prefix(b"/~/").unwrap_or(path);
        if path.is_empty() || path == b"/" {
            return Err("it names no path: ssh://HOST/PATH");
        }
        if path.len() > PATH_BYTES_MAX || path.contains(&0) {
            return Err("the path is too long or has a zero byte");
        }
        Ok(Self {
            login: login.map(str::to_owned),
            host: host.to_owned(),
            port,
            path: path.to_vec(),
        })
    }

    /// Without the path, for messages.
    pub fn host_text(&self) -> String {
        let mut text = String::new();
        if let Some(login) = &self.login {
            text.push_str(login);
            text.push('@');
        }
        match self.host.contains(':') {
            true => text.push_str(&format!("[{}]", self.host)),
            false => text.push_str(&self.host),
        }
        if let Some(port) = self.port {
            text.push_str(&format!(":{port}"));
        }
        text
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let home = if self.path.starts_with(b"/") {
            ""
        } else {
            "/~/"
        };
        let path = String::from_utf8_lossy(&self.path);
        write!(f, "ssh://{}{home}{path}", self.host_text())
    }
}

/// A leading dash would be an option of ssh; white space and control bytes are in no name. What
/// else a name may be is for ssh to say.
fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= WORD_BYTES_MAX
        && !text.starts_with('-')
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
        && !text.contains(['/', '\'', '"', '`', '$', ';', '&', '|', '<', '>', '(', ')'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Address, &'static str> {
        Address::parse(OsStr::new(text))
    }

    #[test]
    fn t_05_login_host_port_and_path_are_what_is_written() {
        let parts = |text: &str| {
            let address = parse(text).unwrap();
            let path = String::from_utf8(address.path.clone()).unwrap();
            assert_eq!(parse(&address.to_string()), Ok(address.clone()), "{text}");
            (address.login, address.host, address.port, path)
        };
        let some = |text: &str| Some(text.to_owned());
        let host = |text: &str| text.to_owned();
        assert_eq!(
            parts("ssh://bk@127.0.0.1:2222/p"),
            (some("bk"), host("127.0.0.1"), Some(2222), "/p".into())
        );
        // No default user, no default port.
        assert_eq!(
            parts("ssh://nas/srv/b c"),
            (None, host("nas"), None, "/srv/b c".into())
        );
        assert_eq!(
            parts("ssh://[fe80::1%eth0]:22/p"),
            (None, host("fe80::1%eth0"), Some(22), "/p".into())
        );
        assert_eq!(
            parts("ssh://a@corp@h/~/backup"),
            (some("a@corp"), host("h"), None, "backup".into())
        );
    }

    #[test]
    fn t_05_what_is_no_address_is_refused_with_its_defect() {
        for (text, word) in [
            ("ssh://host", "no path"),
            ("ssh://host/", "no path"),
            ("ssh://host/~/", "no path"),
            ("ssh:///p", "host's name"),
            ("ssh://@h/p", "login"),
            ("ssh://h:0/p", "port"),
            ("ssh://h:/p", "port"),
            ("ssh://h:65536/p", "port"),
            ("ssh://h:+22/p", "port"),
            ("ssh://h:22x/p", "port"),
            ("ssh://::1/p", "brackets"),
            ("ssh://[::1/p", "closed"),
            ("ssh://[::1]22/p", "colon"),
            ("ssh://-oProxyCommand=x/p", "host's name"),
            ("ssh://-l@h/p", "login"),
            ("ssh://a b/p", "host's name"),
            ("ssh://a`x`/p", "host's name"),
            ("host:/p", "ssh://"),
        ] {
            let defect = parse(text).unwrap_err();
            assert!(defect.contains(word), "{text}: {defect}");
        }
    }
}
