// Swagger UI over the OpenAPI document of this service.
SwaggerUIBundle({ url: "docs.json", dom_id: "#api", validatorUrl: null });
