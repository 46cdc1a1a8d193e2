//! Close codes: why a stream or a connection was ended, as both sides see it.

use std::fmt;

use crate::transport::Code;

macro_rules! close_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// Why a link or a connection was closed. Travels as a number; one that this version does not know arrives
        /// as [`Unknown`](Self::Unknown).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum CloseCode {
            $($(#[$doc])* $name,)*
            /// A code of a later version.
            Unknown(u32),
        }

        impl CloseCode {
            /// The number on the wire.
            #[must_use]
            pub const fn code(self) -> u32 {
                match self {
                    $(Self::$name => $code,)*
                    Self::Unknown(code) => code,
                }
            }
        }

        impl From<Code> for CloseCode {
            fn from(code: Code) -> Self {
                match code {
                    $($code => Self::$name,)*
                    code => Self::Unknown(code),
                }
            }
        }

        impl fmt::Display for CloseCode {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name => f.write_str($text),)*
                    Self::Unknown(code) => write!(f, "unknown code {code}"),
                }
            }
        }
    };
}

close_codes! {
    /// Done; nothing is wrong.
    Normal = 0, "done";
    /// A predicate of the other side does not admit this peer.
    NotAllowed = 1, "not allowed by a predicate";
    /// The other side has as many subscribers as it takes.
    NoCapacity = 2, "no capacity";
    /// This consumer did not keep up with its producer.
    TooSlow = 3, "too slow";
    /// The other side does not produce this stream.
    StreamNotFound = 4, "stream not found";
    /// The two nodes belong to different networks.
    DifferentNetwork = 5, "different network";
    /// The other side could not learn who this peer is.
    UnknownPeer = 6, "unknown peer";
    /// Both sides declare the same thing differently.
    Incompatible = 7, "incompatible declarations";
    /// The other side is shutting down.
    ShuttingDown = 8, "shutting down";
    /// A frame or an item is over the limit of its protocol.
    TooLarge = 9, "too large";
    /// Bytes that are no message of this protocol.
    Undecodable = 10, "undecodable";
    /// The other side does not speak this protocol or this version of it.
    UnsupportedProtocol = 11, "protocol or version not supported";
    /// Nothing was using the connection.
    Idle = 12, "idle";
    /// The other side waited too long for this one.
    Timeout = 13, "timed out";
    /// The other side is not a member of this group.
    GroupNotFound = 14, "not a member of the group";
    /// The group's key was not proved.
    WrongKey = 15, "the group's key was not proved";
    /// A later life of this member's storage is known.
    OldIncarnation = 16, "an incarnation that is over";
    /// Another bond of the same two members is used.
    Duplicate = 17, "another bond of the two is used";
    /// This member's storage is an older copy: more of it was seen before.
    OlderCopy = 18, "an older copy of this member's storage";
    /// Another process runs on a copy of this member's storage.
    SecondStart = 19, "another start of this member's storage is running";
    /// The other side does not admit this one to its network; a stranger is told no more.
    Refused = 20, "refused";
    /// The network's authority has taken this peer's ticket back.
    Revoked = 21, "the ticket was revoked";
    /// This peer's ticket has run out, and it has shown no other one.
    Expired = 22, "the ticket has expired";
    /// The ticket of one of the two does not grant what the declaration of a stream, a store or a group asks for.
    NotGranted = 23, "a grant is missing";
    /// The producer cannot judge items by the filter that this consumer asks for.
    NotFiltered = 24, "the filter cannot be applied";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip() {
        for code in 0..64 {
            assert_eq!(CloseCode::from(code).code(), code);
        }
    }
}
