package access

import (
	"google.golang.org/protobuf/proto"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// rule says what a method needs.
type rule struct {
	right Right
	// locations are those that the request is about.
	locations func(proto.Message) []string
	// all says that no location means those that the caller may read: the answer is filtered.
	all bool
}

// named is a request about one location.
type named interface{ GetLocation() string }

func one(m proto.Message) []string {
	if r, ok := m.(named); ok {
		return []string{r.GetLocation()}
	}
	return nil
}

func none(proto.Message) []string { return nil }

// rules has one for every method of the API.
var rules = map[string]rule{
	codeserverpb.CodeServer_Deploy_FullMethodName:    {right: Deploy, locations: one},
	codeserverpb.CodeServer_DeployAll_FullMethodName: {right: Deploy, locations: several},
	codeserverpb.CodeServer_Rollback_FullMethodName:  {right: Rollback, locations: one},
	codeserverpb.CodeServer_Restart_FullMethodName:   {right: Rollback, locations: one},
	codeserverpb.CodeServer_Remove_FullMethodName:    {right: Remove, locations: one},
	codeserverpb.CodeServer_List_FullMethodName:      {right: Read, locations: none, all: true},
	codeserverpb.CodeServer_Watch_FullMethodName:     {right: Read, locations: oneOrAll, all: true},
	codeserverpb.CodeServer_Logs_FullMethodName:      {right: Read, locations: one},
}

func several(m proto.Message) []string {
	all := []string{}
	if r, ok := m.(*codeserverpb.DeployAllRequest); ok {
		for _, d := range r.GetDeploys() {
			all = append(all, d.GetLocation())
		}
	}
	return all
}

func oneOrAll(m proto.Message) []string {
	if l := one(m); len(l) > 0 && l[0] != "" {
		return l
	}
	return nil
}
