// Package vm is the second test bed: QEMU boots Debian's own kernel with cgroup v2 and AppArmor and runs test
// binaries of other packages (the file packages lists them).
//
//	make test-vm                        # all of them
//	test/vm/run test/script             # one
//
// Beware: it is software emulation, ten to twenty times slower than the host. Tests that measure time skip there
// (HULL_TEST_VM is set).
package vm
