// Package integration holds the tests of the whole program that a script cannot tell: races, terminals, full disks,
// foreign root file systems, users without rights. What a script can tell is in test/script.
package integration
