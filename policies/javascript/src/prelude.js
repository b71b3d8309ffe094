// What a policy finds beside the language. The same question has the same answer: no clock, no chance.
"use strict";
(() => {
    for (const name of ["Date", "WeakRef", "FinalizationRegistry", "Atomics", "SharedArrayBuffer"]) {
        delete globalThis[name];
    }
    delete Math.random;
    const findings = (list) => list.flat().map((one) => (typeof one === "object" ? one : { message: String(one) }));
    // allow("no-new-privileges", { drop_capabilities: ["CAP_NET_RAW"] })
    globalThis.allow = (...restrictions) => ({ decision: "allow", restrictions: restrictions.flat() });
    // deny({ code: "ROOT001", message: "the container runs as root", path: "/uid", help: "--user 1000" })
    globalThis.deny = (...list) => ({ decision: "deny", diagnostics: findings(list) });
    // warn({ code: "TAG001", message: "the image has no tag" }): let pass, and told.
    globalThis.warn = (...list) => ({ decision: "allow", diagnostics: findings(list) });
    globalThis.abstain = () => ({ decision: "abstain" });
})();
