//! Networks of projects and of the site. `networks` beside this one is of nodes' own addresses.

mod floating;
mod groups;
mod mirrors;
mod networks;
mod ports;
mod routers;
mod site;
mod subnets;

use protocol::ProjectId;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::extract::{bad_query, limit};
use super::requests::PageQuery;
use crate::engine::overlay::Held;
use crate::store::overlay::Row;
use crate::view::{Page, Problem};

/// A page of what a project has, oldest first.
fn page<T: Held, V: for<'a> From<&'a Row<T>>>(
    api: &Api,
    project: ProjectId,
    query: &PageQuery,
    wanted: impl Fn(&T) -> bool,
) -> Result<Page<V>, Problem> {
    let limit = limit(query.limit)?;
    let wrong = || bad_query("the cursor is not one of this list".to_owned());
    let after = match &query.cursor {
        Some(cursor) => Some(cursor.parse::<T::Id>().map_err(|_| wrong())?),
        None => None,
    };
    let slice = api.engine.overlay_things::<T>(project, after, limit, wanted);
    let next = slice.rows.last().filter(|_| slice.more).map(|row| row.id.to_string());
    Ok(Page { items: slice.rows.iter().map(|row| V::from(row)).collect(), next })
}

/// Their routes.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(site::status))
        .routes(routes!(site::list, site::create))
        .routes(routes!(site::show, site::change, site::remove))
        .routes(routes!(site::list_subnets, site::create_subnet))
        .routes(routes!(site::show_subnet, site::change_subnet, site::remove_subnet))
        .routes(routes!(networks::list, networks::create))
        .routes(routes!(networks::show, networks::change, networks::remove))
        .routes(routes!(subnets::list, subnets::create))
        .routes(routes!(subnets::show, subnets::change, subnets::remove))
        .routes(routes!(ports::list, ports::create))
        .routes(routes!(ports::show, ports::change, ports::remove))
        .routes(routes!(ports::attach))
        .routes(routes!(ports::detach))
        .routes(routes!(groups::list, groups::create))
        .routes(routes!(groups::show, groups::change, groups::remove))
        .routes(routes!(routers::list, routers::create))
        .routes(routes!(routers::show, routers::change, routers::remove))
        .routes(routes!(routers::set_gateway, routers::clear_gateway))
        .routes(routes!(routers::join, routers::leave))
        .routes(routes!(floating::list, floating::create))
        .routes(routes!(floating::show, floating::remove))
        .routes(routes!(floating::associate))
        .routes(routes!(floating::disassociate))
        .routes(routes!(mirrors::list, mirrors::create))
        .routes(routes!(mirrors::show, mirrors::change, mirrors::remove))
}
