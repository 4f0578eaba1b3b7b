//! How networks of a project hang together, as a picture: provider networks, routers, networks with their subnets, and what is plugged
//! in, in four columns from left to right.
//!
//! ```text
//!   public ───── edge ─────┬─── blue  10.0.0.0/24 ───┬─── web-1
//!                          │                         └─── web-2
//!                          └─── green 10.1.0.0/24 ─────── db
//! ```
//!
//! Places alone are decided here; what a text holds is escaped by the template, and what is too long for its box is cut.

use std::fmt::Write as _;

/// Widths of the columns and of what is between them, in the picture's units.
const WIDTHS: [u32; 4] = [150, 150, 230, 250];
const BETWEEN: u32 = 62;
const MARGIN: u32 = 12;
/// Height of the words above the columns.
const HEAD: u32 = 34;
/// A line of text, and what is above and below the lines in a box.
const LINE: u32 = 17;
const INSIDE: u32 = 9;
/// Between boxes of a column, and between networks.
const GAP: u32 = 8;
const APART: u32 = 18;
/// Width of a letter, at most.
const LETTER: u32 = 7;
/// Ports of one network that are drawn; how many more there are is said.
pub(super) const PORTS: usize = 8;

/// What is to be drawn.
#[derive(Debug, Default)]
pub(super) struct Map {
    pub providers: Vec<Named>,
    pub routers: Vec<RouterAt>,
    pub networks: Vec<NetworkAt>,
}

/// Something with a name and, where it has one, a page.
#[derive(Debug, Clone, Default)]
pub(super) struct Named {
    pub name: String,
    pub href: Option<String>,
}

/// A router: which provider network it leads to and as what, and which subnets it joins.
#[derive(Debug, Default)]
pub(super) struct RouterAt {
    pub it: Named,
    /// Place of the provider network, and its address there.
    pub out: Option<(usize, String)>,
    /// Places of a network and of a subnet of it.
    pub joins: Vec<(usize, usize)>,
}

/// A network with its subnets and ports.
#[derive(Debug, Default)]
pub(super) struct NetworkAt {
    pub it: Named,
    pub subnets: Vec<String>,
    pub ports: Vec<PortAt>,
    /// Ports that are not among those.
    pub more: usize,
}

/// What is plugged in.
#[derive(Debug, Default)]
pub(super) struct PortAt {
    pub it: Named,
    /// A server is plugged in.
    pub server: bool,
    pub addresses: String,
    /// Floating address that leads there.
    pub floating: Option<String>,
}

/// The picture.
#[derive(Debug)]
pub(super) struct Picture {
    pub width: u32,
    pub height: u32,
    /// What it shows, in sentences.
    pub words: String,
    /// Words above the columns, with their place.
    pub heads: Vec<(&'static str, u32)>,
    pub lines: Vec<Line>,
    pub boxes: Vec<Shape>,
}

/// A line between two boxes.
#[derive(Debug)]
pub(super) struct Line {
    /// SVG's path.
    pub path: String,
}

/// A box with text.
#[derive(Debug)]
pub(super) struct Shape {
    pub class: &'static str,
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
    pub href: Option<String>,
    /// All of it, for whoever points at it or does not see it.
    pub title: String,
    /// Lines of text with their base lines; the first is the name.
    pub texts: Vec<(String, u32)>,
}

impl Shape {
    fn middle(&self) -> u32 {
        self.y + self.height / 2
    }

    /// Where the text begins.
    pub fn text_x(&self) -> u32 {
        self.x + 11
    }
}

/// Left edge of a column.
fn left(column: usize) -> u32 {
    MARGIN + WIDTHS.iter().take(column).map(|width| width + BETWEEN).sum::<u32>()
}

fn height(lines: usize) -> u32 {
    u32::try_from(lines).unwrap_or(0) * LINE + 2 * INSIDE
}

/// A text that fits into a column.
fn cut(text: &str, column: usize) -> String {
    let most = usize::try_from((WIDTHS[column] - 22) / LETTER).unwrap_or(8);
    match text.chars().count() {
        count if count <= most => text.to_owned(),
        _ => text.chars().take(most - 1).chain(['…']).collect(),
    }
}

fn shape(class: &'static str, column: usize, y: u32, it: &Named, what: &str, rest: &[String]) -> Shape {
    let texts = std::iter::once(&it.name).chain(rest);
    let texts: Vec<_> =
        (1..).zip(texts).map(|(line, text)| (cut(text, column), y + INSIDE + line * LINE - 4)).collect();
    let title = std::iter::once(format!("{what} {}", it.name)).chain(rest.iter().cloned());
    Shape {
        class,
        x: left(column),
        y,
        width: WIDTHS[column],
        height: height(texts.len()),
        href: it.href.clone(),
        title: title.collect::<Vec<_>>().join(", "),
        texts,
    }
}

/// Draws it.
pub(super) fn draw(mut map: Map) -> Picture {
    sort(&mut map);
    let mut lines = Vec::new();
    let mut ports = Vec::new();
    let mut networks: Vec<Shape> = Vec::new();
    let mut y = HEAD;
    for network in &map.networks {
        let (it, below) = with_ports(network, y);
        for port in &below {
            lines.push(line((it.x + it.width, it.middle()), (port.x, port.middle())));
        }
        let ends = below.last().map_or(0, |last| last.y + last.height).max(it.y + it.height);
        y = ends + APART;
        networks.push(it);
        ports.extend(below);
    }
    let bottom = y.saturating_sub(APART);
    let routers = beside(&map.routers, 1, router_shape, |router| {
        let joined = router.joins.iter().filter_map(|(network, _)| networks.get(*network));
        joined.map(Shape::middle).collect()
    });
    for (router, at) in map.routers.iter().zip(&routers) {
        for (network, subnet) in &router.joins {
            if let Some(to) = networks.get(*network) {
                // The line ends at the subnet that is joined.
                let row = u32::try_from(subnet + 1).unwrap_or(1);
                let y = to.y + INSIDE + row * LINE + LINE / 2;
                lines.push(line((at.x + at.width, at.middle()), (to.x, y.min(to.y + to.height))));
            }
        }
    }
    let providers = beside(
        &map.providers,
        0,
        |it, y| shape("provider", 0, y, it, "Provider network", &[]),
        |it| {
            let led = map.routers.iter().zip(&routers);
            let led = led.filter(|(router, _)| {
                let out = router.out.as_ref().and_then(|(provider, _)| map.providers.get(*provider));
                out.is_some_and(|provider| std::ptr::eq(provider, *it))
            });
            led.map(|(_, at)| at.middle()).collect()
        },
    );
    for (router, at) in map.routers.iter().zip(&routers) {
        if let Some(from) = router.out.as_ref().and_then(|(provider, _)| providers.get(*provider)) {
            lines.push(line((from.x + from.width, from.middle()), (at.x, at.middle())));
        }
    }
    let heads = ["Provider networks", "Routers", "Networks", "Plugged in"];
    let lowest = |shapes: &[Shape]| shapes.iter().map(|it| it.y + it.height).max().unwrap_or(0);
    let height = bottom.max(lowest(&routers)).max(lowest(&providers)) + MARGIN;
    Picture {
        width: left(3) + WIDTHS[3] + MARGIN,
        height,
        words: words(&map),
        heads: (0..).zip(heads).map(|(column, head)| (head, left(column))).collect(),
        lines,
        boxes: providers.into_iter().chain(routers).chain(networks).chain(ports).collect(),
    }
}

/// Routers by the provider network that they lead to, and networks by their router, so that few lines cross.
fn sort(map: &mut Map) {
    map.routers.sort_by_key(|router| router.out.as_ref().map_or(usize::MAX, |(provider, _)| *provider));
    let first = |network: usize| {
        let joins = |router: &RouterAt| router.joins.iter().any(|(joined, _)| *joined == network);
        map.routers.iter().position(joins).unwrap_or(usize::MAX)
    };
    let mut order: Vec<usize> = (0..map.networks.len()).collect();
    order.sort_by_key(|network| first(*network));
    let mut places = vec![0; order.len()];
    for (place, network) in order.iter().enumerate() {
        places[*network] = place;
    }
    let mut networks: Vec<Option<NetworkAt>> =
        std::mem::take(&mut map.networks).into_iter().map(Some).collect();
    map.networks = order.iter().filter_map(|network| networks[*network].take()).collect();
    for (network, _) in map.routers.iter_mut().flat_map(|router| &mut router.joins) {
        *network = places.get(*network).copied().unwrap_or(usize::MAX);
    }
}

/// A network from this height on, with the boxes of its ports; it stands in the middle of them.
fn with_ports(network: &NetworkAt, y: u32) -> (Shape, Vec<Shape>) {
    let mut ports: Vec<Shape> = Vec::new();
    for port in network.ports.iter().take(PORTS) {
        let top = ports.last().map_or(y, |last| last.y + last.height + GAP);
        let mut rest = vec![port.addresses.clone()];
        if let Some(floating) = &port.floating {
            rest.push(format!("from outside {floating}"));
        }
        let (class, what) = if port.server { ("server", "Server") } else { ("free", "Free port") };
        ports.push(shape(class, 3, top, &port.it, what, &rest));
    }
    let more = network.more + network.ports.len().saturating_sub(PORTS);
    if more > 0 {
        let top = ports.last().map_or(y, |last| last.y + last.height + GAP);
        let it = Named { name: format!("and {more} more"), href: network.it.href.clone() };
        ports.push(shape("free", 3, top, &it, "Ports:", &[]));
    }
    let own = shape("network", 2, y, &network.it, "Network", &network.subnets);
    let ends = ports.last().map_or(y, |last| last.y + last.height);
    let down = ends.saturating_sub(y).saturating_sub(own.height) / 2;
    (moved(own, down), ports)
}

/// The same, lower.
fn moved(mut shape: Shape, down: u32) -> Shape {
    shape.y += down;
    shape.texts.iter_mut().for_each(|(_, y)| *y += down);
    shape
}

/// Boxes of a column, each as near to the middle of what it leads to as those above it let it.
fn beside<T>(
    all: &[T],
    column: usize,
    shape: impl Fn(&T, u32) -> Shape,
    near: impl Fn(&&T) -> Vec<u32>,
) -> Vec<Shape> {
    let mut free = HEAD;
    let mut made = Vec::with_capacity(all.len());
    let mut wanted: Vec<(u32, usize)> = Vec::with_capacity(all.len());
    for (number, it) in all.iter().enumerate() {
        let near = near(&it);
        let middle = near.iter().sum::<u32>() / u32::try_from(near.len().max(1)).unwrap_or(1);
        // What leads nowhere stands below all others.
        wanted.push((if near.is_empty() { u32::MAX } else { middle }, number));
    }
    wanted.sort_unstable();
    for (middle, number) in wanted {
        let own = shape(&all[number], 0);
        let top = if middle == u32::MAX { free } else { middle.saturating_sub(own.height / 2).max(free) };
        free = top + own.height + GAP;
        debug_assert!(own.x == left(column), "a box of another column");
        made.push((number, moved(own, top)));
    }
    made.sort_by_key(|(number, _)| *number);
    made.into_iter().map(|(_, shape)| shape).collect()
}

fn router_shape(router: &RouterAt, y: u32) -> Shape {
    let rest: Vec<String> = router.out.iter().map(|(_, address)| address.clone()).collect();
    shape("router", 1, y, &router.it, "Router", &rest)
}

/// From the right edge of one to the left edge of another.
fn line((x, y): (u32, u32), (to_x, to_y): (u32, u32)) -> Line {
    let bend = x + to_x.saturating_sub(x) / 2;
    Line { path: format!("M{x} {y}C{bend} {y} {bend} {to_y} {to_x} {to_y}") }
}

/// What the picture shows, for whoever does not see it.
fn words(map: &Map) -> String {
    let mut words = String::new();
    for router in &map.routers {
        let _ = write!(words, "Router {}", router.it.name);
        if let Some((provider, address)) = &router.out {
            let name = map.providers.get(*provider).map_or("", |provider| provider.name.as_str());
            let _ = write!(words, " leads to provider network {name} as {address}");
        } else {
            words.push_str(" leads nowhere outside");
        }
        let joined = router.joins.iter().filter_map(|(network, _)| map.networks.get(*network));
        let joined: Vec<&str> = joined.map(|network| network.it.name.as_str()).collect();
        let _ = match joined.is_empty() {
            true => write!(words, " and joins nothing. "),
            false => write!(words, " and joins {}. ", joined.join(", ")),
        };
    }
    for network in &map.networks {
        let subnets =
            if network.subnets.is_empty() { "no subnet".to_owned() } else { network.subnets.join(", ") };
        let ports = network.ports.len() + network.more;
        let ports = boot_server_core::plural::count(ports, "port");
        let _ = write!(words, "Network {} has {subnets} and {ports}", network.it.name);
        let plugged: Vec<&str> =
            network.ports.iter().filter(|port| port.server).map(|port| port.it.name.as_str()).collect();
        if !plugged.is_empty() {
            let _ = write!(words, ": {}", plugged.join(", "));
        }
        words.push_str(". ");
    }
    words.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Named {
        Named { name: name.to_owned(), href: None }
    }

    fn network(name: &str, ports: usize) -> NetworkAt {
        let port = |number| PortAt {
            it: named(&format!("{name}-{number}")),
            server: true,
            addresses: format!("10.0.0.{number}"),
            floating: (number == 0).then(|| "203.0.113.9".to_owned()),
        };
        NetworkAt {
            it: named(name),
            subnets: vec!["10.0.0.0/24".to_owned(), "fd00::/64".to_owned()],
            ports: (0..ports).map(port).collect(),
            more: 0,
        }
    }

    fn map() -> Map {
        Map {
            providers: vec![named("public"), named("office")],
            routers: vec![
                RouterAt { it: named("lonely"), ..RouterAt::default() },
                RouterAt {
                    it: named("edge"),
                    out: Some((1, "203.0.113.5".to_owned())),
                    joins: vec![(0, 0), (2, 1)],
                },
                RouterAt {
                    it: named("gate"),
                    out: Some((0, "198.51.100.5".to_owned())),
                    joins: vec![(1, 0)],
                },
            ],
            networks: vec![
                network("blue", 3),
                network("green", 0),
                network("a-network-with-a-very-long-name-indeed", 20),
            ],
        }
    }

    fn at<'a>(picture: &'a Picture, name: &str) -> &'a Shape {
        picture.boxes.iter().find(|it| it.texts[0].0 == name).unwrap_or_else(|| panic!("{name}: {picture:?}"))
    }

    #[test]
    fn nothing_lies_on_another_and_all_is_within_the_picture() {
        let picture = draw(map());
        for (number, one) in picture.boxes.iter().enumerate() {
            assert!(one.x + one.width <= picture.width && one.y + one.height <= picture.height, "{one:?}");
            for (text, y) in &one.texts {
                assert!(*y > one.y && *y < one.y + one.height, "{text} is outside of {one:?}");
            }
            for other in &picture.boxes[number + 1..] {
                let apart = one.x + one.width <= other.x
                    || other.x + other.width <= one.x
                    || one.y + one.height <= other.y
                    || other.y + other.height <= one.y;
                assert!(apart, "{one:?} lies on {other:?}");
            }
        }
    }

    #[test]
    fn networks_stand_by_their_routers_and_lines_end_at_subnets() {
        let picture = draw(map());
        // `gate` leads to the first provider network, so that its network comes first.
        let (green, blue) = (at(&picture, "green"), at(&picture, "blue"));
        assert!(green.y < blue.y && at(&picture, "gate").y < at(&picture, "edge").y);
        assert!(at(&picture, "lonely").y > at(&picture, "edge").y, "what joins nothing is below");
        assert_eq!(
            picture
                .lines
                .iter()
                .filter(|line| line.path.ends_with(&format!(" {} {}", blue.x, blue.y + 34)))
                .count(),
            1
        );
        assert_eq!(at(&picture, "and 12 more").class, "free");
        assert!(at(&picture, "a-network-with-a-very-long-n…").title.contains("indeed"));
        // 3 + 0 + 8 + 1 ports, 3 joins, 2 ways out.
        assert_eq!(picture.lines.len(), 12 + 3 + 2);
    }

    #[test]
    fn the_same_is_said_in_words() {
        let words = draw(map()).words;
        for part in [
            "Router edge leads to provider network office as 203.0.113.5 and joins blue, a-network-with-a-very-long-name-indeed.",
            "Router lonely leads nowhere outside and joins nothing.",
            "Network green has 10.0.0.0/24, fd00::/64 and 0 ports.",
            "Network blue has 10.0.0.0/24, fd00::/64 and 3 ports: blue-0, blue-1, blue-2.",
        ] {
            assert!(words.contains(part), "{part}: {words}");
        }
        assert_eq!(draw(Map::default()).boxes.len(), 0);
    }
}
