//! Parameter sets as they come in-band.

use super::payload::{Cutter, Format, Kind};
use crate::media::nal::MAX_PARAMETER_SET;
use crate::media::track::Params;
use std::sync::Arc;

/// The first parameter set of each kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Sets {
    vps: Option<Arc<[u8]>>,
    pub(crate) sps: Option<Arc<[u8]>>,
    pps: Option<Arc<[u8]>>,
}

impl Sets {
    pub(crate) fn of(params: &Params) -> Self {
        match params.clone() {
            Params::H264 { sps, pps } => Sets { vps: None, sps: Some(sps), pps: Some(pps) },
            Params::H265 { vps, sps, pps } => Sets { vps: Some(vps), sps: Some(sps), pps: Some(pps) },
            Params::None | Params::Aac { .. } => Sets::default(),
        }
    }

    /// Remembers `nal` if it is a parameter set and the first of its kind.
    pub(crate) fn note(&mut self, kind: Kind, nal: &[u8]) {
        let place = match kind {
            Kind::Vps => &mut self.vps,
            Kind::Sps => &mut self.sps,
            Kind::Pps => &mut self.pps,
            _ => return,
        };
        if nal.len() <= MAX_PARAMETER_SET {
            place.get_or_insert_with(|| nal.into());
        }
    }

    /// These, and those of `others` where there are none.
    pub(crate) fn or(self, others: Sets) -> Sets {
        Sets { vps: self.vps.or(others.vps), sps: self.sps.or(others.sps), pps: self.pps.or(others.pps) }
    }

    /// All that the format needs, or `None`.
    pub(crate) fn params(&self, format: Format) -> Option<Params> {
        let (sps, pps) = (self.sps.clone()?, self.pps.clone()?);
        Some(match format {
            Format::H264 => Params::H264 { sps, pps },
            Format::H265 => Params::H265 { vps: self.vps.clone()?, sps, pps },
        })
    }

    /// The sets as payloads: one aggregate if it fits into `max` bytes.
    pub(crate) fn payloads(&self, format: Format, max: usize) -> Vec<Arc<[u8]>> {
        let nals: Vec<&[u8]> =
            [&self.vps, &self.sps, &self.pps].into_iter().flatten().map(|nal| &**nal).collect();
        if let Some(payload) = format.aggregate(&nals, max) {
            return vec![payload];
        }
        let mut payloads = Vec::new();
        for nal in nals {
            whole_nal(format, nal, max, |payload| payloads.push(payload));
        }
        payloads
    }
}

/// Puts one NAL unit into payloads of at most `max` bytes.
pub(crate) fn whole_nal(format: Format, nal: &[u8], max: usize, mut emit: impl FnMut(Arc<[u8]>)) {
    if nal.len() <= max {
        emit(nal.into());
    } else if let (Some(header), Some(body)) = (format.header(nal), nal.get(format.header_len()..)) {
        Cutter::new(format, header, max).push(body, true, emit);
    }
}
