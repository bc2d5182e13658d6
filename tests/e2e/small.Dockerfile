# Goes the way of components/images/vllm.Dockerfile (arguments, stages, a file handed on), without a network.
ARG BASE=lmsysorg/sglang:v0.5.21

FROM ${BASE} AS build
ARG VLLM_REF=none
RUN mkdir -p /wheels && echo "${VLLM_REF}" > /wheels/ref

FROM ${BASE} AS unused
RUN exit 1

FROM ${BASE} AS serve
COPY --from=build /wheels/ref /etc/built-from
CMD ["sh"]
