//! HTML pages, with the policy that browsers show them under.
//!
//! Knows no call: the dashboard requests what it shows, as any client does.

use axum::response::{IntoResponse, Response};

/// The dashboard: one HTML page that contains its scripts and styles. The scripts are one module, in this order.
pub(super) async fn dashboard() -> Response {
    const PAGE: &str = concat!(
        include_str!("dashboard/head.html"),
        include_str!("dashboard/style.css"),
        include_str!("dashboard/body.html"),
        include_str!("dashboard/calls.js"),
        include_str!("dashboard/insights.js"),
        include_str!("dashboard/page.js"),
        include_str!("dashboard/reader.js"),
        include_str!("dashboard/foot.html"),
    );
    // The page may load nothing else and connect only to this server, so text of a call can never become a script or a
    // request.
    const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                          connect-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'";
    page(PAGE, POLICY)
}

/// An HTML page that browsers show under the content security `policy`.
pub(super) fn page(html: &'static str, policy: &'static str) -> Response {
    let headers = [
        (http::header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (http::header::CONTENT_SECURITY_POLICY, policy),
        (http::header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, html).into_response()
}
