// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Links the library that LIBVHOST_LIB_DIR holds (the build tree's .libs, or an installed prefix).
fn main() {
    println!("cargo:rerun-if-env-changed=LIBVHOST_LIB_DIR");
    let dir = std::env::var("LIBVHOST_LIB_DIR").expect("set LIBVHOST_LIB_DIR to the folder that holds libvhost.so");
    println!("cargo:rustc-link-search=native={dir}");
    println!("cargo:rustc-link-lib=dylib=vhost");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{dir}");
}
