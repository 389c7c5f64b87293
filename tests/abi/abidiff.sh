#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# The built library against the recorded ABI; first, two toy libraries prove that the comparison can see a break.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/abi/recipe.sh"
machine=$(gcc -dumpmachine)

# toy NAME STRUCT-BODY FUNCTIONS ENUM PRIVATE-BODY: builds $work/NAME.abi
toy() {
	mkdir "$work/$1" "$work/inside-$1"
	cat >"$work/$1/toy.h" <<-END
		enum kind { $4 };
		struct opts { $2 };
		struct hidden;
		int toy_use(const struct opts *o, enum kind kind, struct hidden *h);
		int toy_old(void);
	END
	cat >"$work/$1/toy.c" <<-END
		#include "toy.h"
		#include <toy.h>
		int toy_use(const struct opts *o, enum kind kind, struct hidden *h) { return o->a + (int)kind + h->x; }
		$3
	END
	echo "struct hidden { $5 };" >"$work/inside-$1/toy.h" # another folder, the same name
	gcc -g -O2 -shared -fPIC -I "$work/inside-$1" -o "$work/$1/toy.so" "$work/$1/toy.c" && abi_write "$work/$1/toy.so" "$work/$1" "$work/$1.abi"
}
old='int toy_old(void) { return 1; }'
toy base 'int a; long b;' "$old" 'ONE = 1' 'int x;'
toy same 'int a; long b;' "$old" 'ONE = 1' 'int x;'
toy private 'int a; long b;' "$old" 'ONE = 1' 'int x; int y;'
toy added 'int a; long b;' "$old int toy_new(void) { return 2; }" 'ONE = 1' 'int x;'
toy swapped 'long b; int a;' "$old" 'ONE = 1' 'int x;'
toy grown 'int a; long b; long c;' "$old" 'ONE = 1' 'int x;'
toy renumbered 'int a; long b;' "$old" 'ONE = 2' 'int x;'
toy removed 'int a; long b;' '' 'ONE = 1' 'int x;'
check 'toy: the same again' abi_compare "$work/base.abi" "$work/same.abi"
check 'toy: a private struct may grow' abi_compare "$work/base.abi" "$work/private.abi"
check 'toy: a function may be added' abi_compare "$work/base.abi" "$work/added.abi"
check_fails 'toy: swapped fields are seen' abi_compare "$work/base.abi" "$work/swapped.abi"
check_fails 'toy: a grown public struct is seen' abi_compare "$work/base.abi" "$work/grown.abi"
check_fails 'toy: a renumbered enumerator is seen' abi_compare "$work/base.abi" "$work/renumbered.abi"
check_fails 'toy: a removed function is seen' abi_compare "$work/base.abi" "$work/removed.abi"

record=$top_srcdir/abi/$machine/libvhost.abi
check 'the ABI of the built library can be written' \
	abi_write "$top_builddir/.libs/libvhost.so" "$top_srcdir/include" "$work/now.abi"
check "no difference to abi/$machine/libvhost.abi (intended? make update-abi)" abi_compare "$record" "$work/now.abi"
tap_end
