//! AAC (ISO/IEC 14496-3): AudioSpecificConfig.
