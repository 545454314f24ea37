// Package deploy holds what runs a fleet: server configs so far. There is no
// code here but the tests that start or check each file.
package deploy
