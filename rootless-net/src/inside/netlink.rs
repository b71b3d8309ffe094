//! Netlink messages (netlink(7)): a writer that patches lengths, and one exchange of a batch for its acknowledgements.
//! Numbers are in host order as the protocol wants them, except where a payload says otherwise.

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use std::os::fd::AsRawFd;

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLA_F_NESTED: u16 = 0x8000;

/// The message is a request.
pub(super) const REQUEST: u16 = 0x1;
/// The kernel answers also when all went well.
pub(super) const ACK: u16 = 0x4;
/// The object must not exist.
pub(super) const EXCLUSIVE: u16 = 0x200;
/// The object is made.
pub(super) const CREATE: u16 = 0x400;
/// The object goes behind the others of its kind.
pub(super) const APPEND: u16 = 0x800;

/// Messages that are sent together.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    messages: u32,
    acks: u32,
}

impl Batch {
    /// Adds a message: its fixed `header` after netlink's own, then what `attributes` writes.
    pub(super) fn message(
        &mut self,
        kind: u16,
        flags: u16,
        header: &[u8],
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        self.messages += 1;
        self.acks += u32::from(flags & ACK != 0);
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.messages.to_ne_bytes());
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend(header);
        attributes(&mut Attributes { bytes: &mut self.bytes });
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        patch(&mut self.bytes, start, &length.to_ne_bytes());
    }

    /// Sends the batch and takes one acknowledgement for each message that asked; the first error ends it.
    pub(super) fn exchange(&self, protocol: SockProtocol) -> Result<(), Errno> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        if send(fd.as_raw_fd(), &self.bytes, MsgFlags::empty())? != self.bytes.len() {
            return Err(Errno::EMSGSIZE);
        }
        let mut acks = 0;
        let mut answer = [0; 8192];
        while acks < self.acks {
            // The kernel has worked through the batch when send returns, so an empty queue is an error, not a wait.
            let count = recv(fd.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
            acks += read_acks(answer.get(..count).unwrap_or_default())?;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes the attributes of one message.
pub(super) struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    /// An attribute with these bytes.
    pub(super) fn put(&mut self, kind: u16, value: &[u8]) {
        self.write(kind, |attributes| attributes.bytes.extend(value));
    }

    /// An attribute that is a string with its NUL.
    pub(super) fn put_name(&mut self, kind: u16, name: &str) {
        self.write(kind, |attributes| {
            attributes.bytes.extend(name.as_bytes());
            attributes.bytes.push(0);
        });
    }

    /// An attribute that is a number in network order, as nfnetlink has them.
    pub(super) fn put_be32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// An attribute made of attributes.
    pub(super) fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Attributes<'_>)) {
        self.write(kind | NLA_F_NESTED, inner);
    }

    fn write(&mut self, kind: u16, value: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.bytes.len();
        self.bytes.extend(0u16.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        value(self);
        // A length that does not fit becomes one that the kernel refuses.
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        patch(self.bytes, start, &length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

fn patch(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// Counts the acknowledgements in one datagram.
fn read_acks(mut datagram: &[u8]) -> Result<u32, Errno> {
    let mut acks = 0;
    while !datagram.is_empty() {
        let length = usize::try_from(u32::from_ne_bytes(field(datagram, 0)?)).map_err(|_| Errno::EBADMSG)?;
        if length < HEADER || length > datagram.len() {
            return Err(Errno::EBADMSG);
        }
        let message = datagram.get(..length).unwrap_or_default();
        if u16::from_ne_bytes(field(message, 4)?) == NLMSG_ERROR {
            match i32::from_ne_bytes(field(message, HEADER)?) {
                0 => acks += 1,
                errno => return Err(Errno::from_raw(errno.saturating_neg())),
            }
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(acks)
}

fn field<const N: usize>(datagram: &[u8], at: usize) -> Result<[u8; N], Errno> {
    let bytes = datagram.get(at..at + N).ok_or(Errno::EBADMSG)?;
    bytes.try_into().map_err(|_| Errno::EBADMSG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_their_lengths_are_not() {
        let mut batch = Batch::default();
        batch.message(0x10, REQUEST | ACK, &[9; 4], |m| {
            m.put(1, &[7]);
            m.nest(2, |m| m.put_name(3, "abcd"));
        });
        #[rustfmt::skip]
        let expected = [
            44, 0, 0, 0,  0x10, 0, 5, 0,  1, 0, 0, 0,  0, 0, 0, 0,
            9, 9, 9, 9,
            5, 0, 1, 0,  7, 0, 0, 0,
            16, 0, 2, 0x80,  9, 0, 3, 0,  b'a', b'b', b'c', b'd',  0, 0, 0, 0,
        ];
        assert_eq!(batch.bytes(), expected);
    }

    #[test]
    fn answers_are_counted_and_the_first_error_wins() {
        let answer = |errno: i32| {
            let mut bytes = vec![20, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
            bytes.extend(errno.to_ne_bytes());
            bytes
        };
        assert_eq!(read_acks(&[answer(0), answer(0)].concat()), Ok(2));
        assert_eq!(read_acks(&[answer(0), answer(-17)].concat()), Err(Errno::EEXIST));
        assert_eq!(read_acks(&answer(0)[..18]), Err(Errno::EBADMSG));
        assert_eq!(read_acks(&[1]), Err(Errno::EBADMSG));
        assert_eq!(read_acks(&[0; 16]), Err(Errno::EBADMSG));
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic_or_hang(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            if let Ok(acks) = read_acks(&bytes) {
                proptest::prop_assert!(acks <= 10);
            }
        }
    }
}
