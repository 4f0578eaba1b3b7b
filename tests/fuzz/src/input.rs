//! How the octets of one input are cut into the packets of a conversation.

/// Packets of one input; more would only make inputs slow.
const PACKETS_MAX: usize = 32;

/// Cuts an input into packets: each is preceded by its length in two octets, little-endian; the last may be short.
pub fn packets(mut data: &[u8]) -> Vec<&[u8]> {
    let mut packets = Vec::new();
    while let Some((len, rest)) = data.split_first_chunk::<2>()
        && packets.len() < PACKETS_MAX
    {
        let len = usize::from(u16::from_le_bytes(*len)).min(rest.len());
        let (packet, rest) = rest.split_at(len);
        packets.push(packet);
        data = rest;
    }
    packets
}
