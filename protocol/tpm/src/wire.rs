//! Octets of a TPM: big-endian numbers, and buffers with a length of 16 bits (TPM2B).

/// What was read is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It ends too early.
    #[error("it ends too early")]
    Short,
    /// Something comes after the end.
    #[error("something comes after its end")]
    Trailing,
    /// A value that is not known here, or not allowed.
    #[error("{0} is not what it can be")]
    Value(&'static str),
}

/// Reads octets; never past their end.
#[derive(Debug, Clone)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Of these octets.
    pub fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    /// The next `n` octets.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.take(N)?.try_into().map_err(|_| WireError::Short)
    }

    /// A number of 8 bits.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn u8(&mut self) -> Result<u8, WireError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    /// A number of 16 bits.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// A number of 32 bits.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A number of 64 bits.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A number of 16 bits, little-endian (event logs).
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn u16_le(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// A number of 32 bits, little-endian (event logs).
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn u32_le(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A TPM2B.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn sized(&mut self) -> Result<&'a [u8], WireError> {
        let n = self.u16()?;
        self.take(n.into())
    }

    /// What was not read.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// # Errors
    /// [`WireError::Trailing`] where something was not read.
    pub fn end(&self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Trailing) }
    }
}

/// Writes octets.
#[derive(Debug, Clone, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// A number of 8 bits.
    #[must_use]
    pub fn u8(mut self, n: u8) -> Self {
        self.0.push(n);
        self
    }

    /// A number of 16 bits.
    #[must_use]
    pub fn u16(mut self, n: u16) -> Self {
        self.0.extend(n.to_be_bytes());
        self
    }

    /// A number of 32 bits.
    #[must_use]
    pub fn u32(mut self, n: u32) -> Self {
        self.0.extend(n.to_be_bytes());
        self
    }

    /// Octets as they are.
    #[must_use]
    pub fn octets(mut self, octets: &[u8]) -> Self {
        self.0.extend(octets);
        self
    }

    /// A TPM2B. What does not fit 16 bits is cut; nothing here is near that long.
    #[must_use]
    pub fn sized(self, octets: &[u8]) -> Self {
        let n = u16::try_from(octets.len()).unwrap_or(u16::MAX);
        self.u16(n).octets(&octets[..n.into()])
    }

    /// All of it.
    pub fn done(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let octets = Writer::default().u8(1).u16(2).u32(3).sized(b"abc").octets(b"z").done();
        let mut r = Reader::new(&octets);
        assert_eq!((r.u8(), r.u16(), r.u32(), r.sized()), (Ok(1), Ok(2), Ok(3), Ok(&b"abc"[..])));
        assert_eq!((r.end(), r.rest()), (Err(WireError::Trailing), &b"z"[..]));
        assert_eq!((r.take(2), r.take(1).is_ok(), r.end()), (Err(WireError::Short), true, Ok(())));
        assert_eq!(Reader::new(&[0, 9, 1]).sized(), Err(WireError::Short));
    }
}
