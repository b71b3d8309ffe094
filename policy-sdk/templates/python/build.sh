#!/bin/sh
# Packs policy.py and CPython into one component. What CPython would ask of WASI is answered inside, with errors: a
# policy reaches nothing.
set -eu
sdk=${RLRUN_POLICY_SDK:-@SDK@}

rm -rf build
mkdir -p build/wit/deps
cp -r "$sdk/wit" build/wit/deps/rlrun-policy-0.1
cp -r "$sdk/wit-0.2" build/wit/deps/rlrun-policy-0.2
cat >build/wit/world.wit <<'WIT'
package this:policy;
world hooks {
  export rlrun:policy/lifecycle@0.1.0;
  export rlrun:policy/create@0.2.0;
}
WIT
# To look things up in: build/bindings/wit_world/imports/types.py and facts.py.
componentize-py -d build/wit -w hooks bindings build/bindings
componentize-py -d build/wit -w hooks componentize --stub-wasi -p . -p build/bindings policy \
    -o "build/@NAME@.component.wasm" >/dev/null
