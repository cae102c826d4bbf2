// Package attack tries the attacks of threats.md, sections 1.1 and 1.2, on real containers. Each test is named after
// the number of its attack and says what must hold.
//
// Two kinds of tests: those of the runtime give it a hostile bundle, and Debian's runc the same bundle as a negative
// control (runc 1.1.5 has some of the holes; where it shows one, the test is known to be able to fail; the log says
// what it showed). Those of the engine use hull run with nothing but its defaults.
//
// The attacks themselves are made by test/attack/attacker inside the container, and by busybox. Files outside, the
// canaries, must neither be read nor changed.
package attack
