/* @NAME@: containers run as another user than root. bindings/policy.h has every type of the interface. */

#include "policy.h"

#include <stdlib.h>
#include <string.h>

static void text(policy_string_t *to, const char *from) { policy_string_dup(to, from); }

/* Called first, with the settings as JSON; this policy has none. */
bool exports_rlrun_policy_lifecycle_init(policy_string_t *settings,
                                         exports_rlrun_policy_lifecycle_list_diagnostic_t *err) {
    bool none = settings->len == 2 && memcmp(settings->ptr, "{}", 2) == 0;
    policy_string_free(settings);
    if (none) return true;
    err->ptr = calloc(1, sizeof *err->ptr);
    err->len = 1;
    text(&err->ptr->code, "SETTINGS");
    text(&err->ptr->message, "this policy has no settings");
    err->ptr->severity = RLRUN_POLICY_TYPES_SEVERITY_HIGH;
    return false;
}

/* Before anything of a container is started. */
void exports_rlrun_policy_create_on_create(exports_rlrun_policy_create_container_t *request,
                                           exports_rlrun_policy_create_caller_t *caller,
                                           exports_rlrun_policy_create_verdict_t *ret) {
    memset(ret, 0, sizeof *ret);
    if (request->uid != 0) {
        ret->decision = RLRUN_POLICY_TYPES_DECISION_ALLOW;
        ret->restrictions.ptr = calloc(1, sizeof *ret->restrictions.ptr);
        ret->restrictions.len = 1;
        ret->restrictions.ptr->tag = RLRUN_POLICY_TYPES_RESTRICTION_NO_NEW_PRIVILEGES;
    } else {
        ret->decision = RLRUN_POLICY_TYPES_DECISION_DENY;
        ret->diagnostics.ptr = calloc(1, sizeof *ret->diagnostics.ptr);
        ret->diagnostics.len = 1;
        rlrun_policy_types_diagnostic_t *found = ret->diagnostics.ptr;
        found->severity = RLRUN_POLICY_TYPES_SEVERITY_HIGH;
        text(&found->code, "ROOT001");
        text(&found->message, "the container runs as root");
        found->path.is_some = true;
        text(&found->path.val, "/uid");
        found->help.is_some = true;
        text(&found->help.val, "run it as somebody: --user 1000:1000");
    }
    exports_rlrun_policy_create_container_free(request);
    exports_rlrun_policy_create_caller_free(caller);
}
