// Package script runs the txtar scripts of this directory, which say how Hull behaves at its surface. Each runs on
// a private engine, twice: with hull and with hulld.
//
//	hull run --rm busybox echo hi
//	stdout ^hi$
//	! hull run --rm nosuch
//	stderr 'No such image: nosuch'
//	exit 125
//
// Beside testscript's own commands there are:
//
//	hull ARG...     the program under test; like exec, with ! when it must fail
//	exit N          the last hull ended with status N
//	census          nothing came or went since the images were loaded (done at the end too)
//	eventually hull ARG...   again until it succeeds, for ten seconds
//
// $HULL is the program, for exec and its &; $DIR is the engine's directory, with root and run in it; $REGISTRY is the
// address of an empty registry, $PRIVATE of one that lets in me with the password secret. Images: busybox, layered:3 (package rig). Conditions: [guest]. Beware: a script removes
// the containers it made, or the census fails it.
package script
