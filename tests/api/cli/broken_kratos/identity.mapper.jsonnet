// What Kratos POSTs to /kratos/sync-identity: the identity and nothing else. Never `ctx` as a whole,
// which carries the session's cookie and the flow's CSRF token.
//
// A call without an identity is sent with null, and refused: a template that fails sends nothing, and
// says so only in Kratos' log.
function(ctx) {
  identity: if std.objectHas(ctx, 'identity') then ctx.identity else null,
}
