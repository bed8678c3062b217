package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"banger/internal/api"
	"banger/internal/buildinfo"
	"banger/internal/fault"
	"banger/internal/image"
	"banger/internal/lifecycle"
	"banger/internal/op"
)

type (
	picture struct {
		Image string `path:"image" doc:"name, id or unique prefix of an id"`
	}
	warmInput struct {
		Image string `path:"image" doc:"name, id or unique prefix of an id"`
		Body  *api.WarmImage
	}
	operation struct {
		ID op.ID `path:"id"`
	}
)

func (s *server) pictures(a huma.API) {
	huma.Register(a, verb("list-images", http.MethodGet, "/v1/images", "List images by name", http.StatusOK),
		func(ctx context.Context, _ *struct{}) (*answer[[]api.Image], error) {
			all, err := s.Verbs.ListImages()
			if err != nil {
				return nil, outcome(err)
			}
			users, err := s.Verbs.ImageUsers(ctx, callerOf(ctx))
			out := make([]api.Image, 0, len(all))
			for _, m := range all {
				out = append(out, listed(m, users[m.ID]))
			}
			return &answer[[]api.Image]{out}, outcome(err)
		})
	huma.Register(a, verb("show-image", http.MethodGet, "/v1/images/{image}", "Show an image and its manifest", http.StatusOK),
		func(ctx context.Context, in *picture) (*answer[api.Image], error) {
			m, err := s.Verbs.FindImage(in.Image)
			if err != nil {
				return nil, outcome(err)
			}
			users, err := s.Verbs.ImageUsers(ctx, callerOf(ctx))
			return &answer[api.Image]{api.Image{Manifest: m, UsedBy: users[m.ID]}}, outcome(err)
		})
	huma.Register(a, verb("pull-image", http.MethodPost, "/v1/images/pull", "Begin to bootstrap an image", http.StatusAccepted),
		func(ctx context.Context, in *body[api.PullImage]) (*answer[op.Operation], error) {
			return began(s.Verbs.PullImage(callerOf(ctx), in.Body.Name))
		})
	huma.Register(a, verb("warm-image", http.MethodPost, "/v1/images/{image}/warm", "Begin to prepare a snapshot that creates go on from", http.StatusAccepted),
		func(ctx context.Context, in *warmInput) (*answer[op.Operation], error) {
			var r api.WarmImage
			if in.Body != nil {
				r = *in.Body
			}
			return began(s.Verbs.WarmImage(ctx, callerOf(ctx), lifecycle.WarmRequest{Image: in.Image, VCPU: r.VCPU, Memory: r.Memory}))
		})
	huma.Register(a, verb("delete-image", http.MethodDelete, "/v1/images/{image}", "Delete an image that no VM uses", http.StatusNoContent),
		func(ctx context.Context, in *picture) (*struct{}, error) {
			return nil, outcome(s.Verbs.DeleteImage(ctx, callerOf(ctx), in.Image))
		})
}

// listed leaves out the packages, which are most of a manifest.
func listed(m image.Manifest, users []string) api.Image {
	m.Packages = nil
	return api.Image{Manifest: m, UsedBy: users}
}

func (s *server) operations(a huma.API) {
	huma.Register(a, verb("list-operations", http.MethodGet, "/v1/operations", "List your latest operations, newest first", http.StatusOK),
		func(ctx context.Context, _ *struct{}) (*answer[[]op.Operation], error) {
			all, err := s.Operations.List(ctx)
			mine := seen(ctx, all)
			return &answer[[]op.Operation]{mine[:min(len(mine), maxOperations)]}, outcome(err)
		})
	huma.Register(a, verb("show-operation", http.MethodGet, "/v1/operations/{id}", "Show an operation", http.StatusOK),
		func(ctx context.Context, in *operation) (*answer[op.Operation], error) {
			o, err := s.operation(ctx, in.ID)
			return &answer[op.Operation]{o}, outcome(err)
		})
	huma.Register(a, verb("cancel-operation", http.MethodPost, "/v1/operations/{id}/cancel", "Call an operation off", http.StatusAccepted),
		func(ctx context.Context, in *operation) (*answer[op.Operation], error) {
			o, err := s.operation(ctx, in.ID)
			if err == nil {
				err = s.Operations.Cancel(in.ID)
			}
			return &answer[op.Operation]{o}, outcome(err)
		})
}

// seen keeps the operations that the caller may know of.
func seen(ctx context.Context, all []op.Operation) []op.Operation {
	mine := make([]op.Operation, 0, len(all))
	for _, o := range all {
		if callerOf(ctx).Sees(o.Owner) {
			mine = append(mine, o)
		}
	}
	return mine
}

// operation finds an operation of the caller's.
func (s *server) operation(ctx context.Context, id op.ID) (op.Operation, error) {
	o, err := s.Operations.Get(ctx, id)
	if err == nil && !callerOf(ctx).Sees(o.Owner) {
		err = fault.New(fault.NotFound, "no such operation").WithOp("find operation", string(id)).WithHint("run `banger op list`")
	}
	return o, err
}

func (s *server) process(a huma.API) {
	huma.Register(a, verb("version", http.MethodGet, "/v1/version", "The daemon's build", http.StatusOK),
		func(context.Context, *struct{}) (*answer[buildinfo.Info], error) {
			return &answer[buildinfo.Info]{buildinfo.Current()}, nil
		})
	huma.Register(a, verb("status", http.MethodGet, "/v1/status", "The daemon, its paths and counts", http.StatusOK),
		func(ctx context.Context, _ *struct{}) (*answer[api.Status], error) {
			st, err := s.Daemon.Status(ctx)
			st.Operations = seen(ctx, st.Operations)
			return &answer[api.Status]{st}, outcome(err)
		})
	huma.Register(a, verb("doctor", http.MethodGet, "/v1/doctor", "What the host has and lacks", http.StatusOK),
		func(ctx context.Context, _ *struct{}) (*answer[[]api.Check], error) {
			return &answer[[]api.Check]{s.Daemon.Doctor(ctx)}, nil
		})
	huma.Register(a, verb("upgrade", http.MethodPost, "/v1/daemon/upgrade", "Execute the daemon's build on disk if it is newer", http.StatusOK),
		func(ctx context.Context, _ *struct{}) (*answer[api.Upgrade], error) {
			up, err := s.Daemon.Upgrade(ctx)
			return &answer[api.Upgrade]{up}, outcome(err)
		})
}
