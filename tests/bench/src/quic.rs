//! Transport settings of plain iroh, by name, so that each can be measured against the others.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use iroh::endpoint::{AckFrequencyConfig, MtuDiscoveryConfig, QuicTransportConfig, VarInt};
use noq_proto::congestion::{Bbr3Config, CubicConfig, NewRenoConfig};

/// What the framework sets for itself (`mosaik/src/transport/iroh.rs`), as far as it bears on speed.
pub const FRAMEWORK: &str = "stream_window=1048576,window=16777216,send_window=16777216,mtu_bound=1452";

/// Builds the settings from `name=value` pairs separated by commas, applied over those of the framework. The single
/// word `stock` leaves iroh's own defaults instead.
pub fn transport_config(settings: &str) -> Result<QuicTransportConfig> {
    let mut builder = QuicTransportConfig::builder();
    let mut mtu = MtuDiscoveryConfig::default();
    let mut ack = None::<AckFrequencyConfig>;
    let base = if settings == "stock" { "" } else { FRAMEWORK };
    let own = if settings == "stock" { "" } else { settings };
    for pair in base.split(',').chain(own.split(',')).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').with_context(|| format!("`{pair}` is no name=value"))?;
        let number = || value.parse::<u32>().with_context(|| format!("`{value}` is no number"));
        let yes = || value.parse::<bool>().with_context(|| format!("`{value}` is neither true nor false"));
        let varint = || Ok::<_, anyhow::Error>(VarInt::from_u32(number()?));
        builder = match name {
            "initial_mtu" => builder.initial_mtu(u16::try_from(number()?)?),
            "min_mtu" => builder.min_mtu(u16::try_from(number()?)?),
            "mtu_bound" => {
                mtu.upper_bound(u16::try_from(number()?)?);
                builder
            }
            "stream_window" => builder.stream_receive_window(varint()?),
            "window" => builder.receive_window(varint()?),
            "send_window" => builder.send_window(number()?.into()),
            "fairness" => builder.send_fairness(yes()?),
            "gso" => builder.enable_segmentation_offload(yes()?),
            "spin" => builder.allow_spin(yes()?),
            "initial_rtt_us" => builder.initial_rtt(Duration::from_micros(number()?.into())),
            "packet_threshold" => builder.packet_threshold(number()?),
            "time_threshold" => builder.time_threshold(value.parse()?),
            "ack_threshold" => {
                ack.get_or_insert_default().ack_eliciting_threshold(varint()?);
                builder
            }
            "ack_delay_us" => {
                ack.get_or_insert_default().max_ack_delay(Some(Duration::from_micros(number()?.into())));
                builder
            }
            "ack_reordering" => {
                ack.get_or_insert_default().reordering_threshold(varint()?);
                builder
            }
            "cubic_window" => {
                let mut config = CubicConfig::default();
                config.initial_window(number()?.into());
                builder.congestion_controller_factory(Arc::new(config))
            }
            "congestion" => match value {
                "cubic" => builder.congestion_controller_factory(Arc::new(CubicConfig::default())),
                "new_reno" => builder.congestion_controller_factory(Arc::new(NewRenoConfig::default())),
                "bbr3" => builder.congestion_controller_factory(Arc::new(Bbr3Config::default())),
                _ => bail!("no congestion controller `{value}`"),
            },
            _ => bail!("no setting `{name}`"),
        };
    }
    Ok(builder.mtu_discovery_config(Some(mtu)).ack_frequency_config(ack).build())
}
