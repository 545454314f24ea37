package web

import "lockstep/model"

func openapi(*model.Spec, string) []byte { return []byte("{}") }
