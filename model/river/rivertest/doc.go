// Package rivertest holds the one suite that every component passes. It ranges
// over the registry, and over the specs in testdata:
//
//   - River's traces: what River said to each event, recorded by generate.py;
//   - River itself on random events, where LOCKSTEP_RIVER names a Python that
//     has it (.ci/river);
//   - a snapshot and what follows it give the full replay, at every sequence;
//   - predicting leaves the state's bytes alone, and allocates nothing; nor does
//     learning, once warm;
//   - all values within the bounds, classes in any order, and a class that comes
//     back give finite numbers;
//   - a damaged state is an error or a state, and never a panic;
//   - each component's state stays within the bound that it declared;
//   - the digest of a fixed log is the same everywhere;
//   - an explanation adds up in its declared unit.
//
// The slow twin, which has no caches and no slots, is in the tests of the
// package model; it takes its specs from here, too.
//
// A class that no spec in testdata has, or no trace, fails the suite. To add a
// component, add NAME.yaml, and NAME.jsonl or a case in generate.py, and run
//
//	go test ./model/river/rivertest -update
//
// which writes pipelines.json, the specs in Python, and adds to digests.txt.
package rivertest
