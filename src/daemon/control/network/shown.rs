//! The network layer as listings show it.

use ripvs_api::ripvs::{Mac, Neigh, NeighState, Port, PortKind, Route, RouteKind};
use ripvs_core::net::{NeighEntry, Nud, LO};
use ripvs_packet::PortId;

use super::{Named, Network, Traffic};

impl Network {
    pub(super) fn show_port(&self, named: &Named, traffic: &dyn Traffic) -> Option<Port> {
        let iface = self.copy.ifaces().get(named.id)?;
        let setup = iface
            .port
            .and_then(|port| self.ports.get(usize::from(port.0)));
        let own_device = named.kind == PortKind::Port || named.kind == PortKind::Bond;
        let device = setup.filter(|_| own_device);
        let counted = match named.kind {
            PortKind::Vlan => self.vlan_place(named),
            _ => iface.port,
        };
        let [rx_packets, rx_bytes, tx_packets, tx_bytes, tx_dropped] =
            counted.map_or([0; 5], |place| traffic.port(place));
        let stats = device
            .and_then(|setup| setup.device.as_ref())
            .and_then(|device| device.stats().ok())
            .unwrap_or_default();
        let link = match setup.and_then(|setup| setup.device.as_ref()) {
            Some(device) => device.link().is_ok_and(|link| link.up),
            None => true,
        };
        Some(Port {
            name: iface.name.clone(),
            kind: named.kind,
            up: iface.up,
            link,
            mac: (iface.id != LO).then_some(Mac(iface.mac)),
            mtu: u32::from(iface.mtu),
            vlan: iface.vlan,
            device: named
                .on
                .clone()
                .or(device.map(|setup| setup.device_name.clone())),
            driver: device.map(|setup| setup.driver.clone()),
            companion: named.companion.clone(),
            rx_queues: device.map_or(0, |setup| setup.queues.0),
            tx_queues: device.map_or(0, |setup| setup.queues.1),
            rx_packets,
            rx_bytes,
            tx_packets,
            tx_bytes,
            rx_missed: stats.imissed,
            rx_errors: stats.ierrors,
            rx_no_buffers: stats.rx_nombuf,
            tx_dropped,
        })
    }

    /// Where a VLAN is counted: behind the ports, in the order of the configuration.
    fn vlan_place(&self, named: &Named) -> Option<PortId> {
        let mut vlans = self
            .named
            .iter()
            .filter(|other| other.kind == PortKind::Vlan);
        let number = vlans.position(|other| other.id == named.id)?;
        Some(PortId((self.ports.len() + number) as u16))
    }

    /// `ripvsadm route`: the operator's routes, then the networks of the interfaces.
    pub fn show_routes(&self) -> Vec<Route> {
        let configured = self.routes.iter().map(|spec| {
            let mut route = self.shown_route(spec, RouteKind::Static);
            // The interface that a route was given none for.
            if route.dev.is_none() {
                let dev = self.copy.routes().check(spec, self.copy.ifaces());
                route.dev = dev.ok().map(|dev| self.name_of(dev));
            }
            route
        });
        let networks = self
            .copy
            .routes()
            .iter()
            .filter(|(_, connected)| *connected);
        let connected = networks.map(|(spec, _)| self.shown_route(spec, RouteKind::Connected));
        let local = self
            .copy
            .ifaces()
            .get(LO)
            .into_iter()
            .flat_map(|lo| &lo.addresses);
        let local = local.filter_map(|own| {
            let prefix = Self::connected(own)?;
            Some(Route {
                prefix: super::shown_prefix(prefix),
                via: None,
                dev: Some("lo".into()),
                mtu: None,
                from: None,
                kind: RouteKind::Local,
            })
        });
        configured.chain(connected).chain(local).collect()
    }

    /// A neighbour as a worker knows it.
    pub fn show_neighbour(&self, entry: &NeighEntry) -> Neigh {
        let state = match entry.state {
            Nud::Incomplete => NeighState::Incomplete,
            Nud::Reachable => NeighState::Reachable,
            Nud::Stale => NeighState::Stale,
            Nud::Delay | Nud::Probe => NeighState::Probe,
            Nud::Failed => NeighState::Failed,
            Nud::Permanent => NeighState::Permanent,
        };
        Neigh {
            addr: entry.addr,
            dev: self.name_of(entry.iface),
            mac: entry.mac.map(Mac),
            state,
            waiting: entry.waiting as u32,
        }
    }

    /// Whether a neighbour of a listing is the one that a request names.
    pub fn is_neighbour(&self, entry: &NeighEntry, named: &Neigh) -> bool {
        entry.addr == named.addr && self.name_of(entry.iface) == named.dev
    }
}
