#pragma once
struct FusedKernels { int reserved; };
